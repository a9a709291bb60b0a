"""What a training run starts from, where AscendSpeed says ``--load`` and ``--save``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ascendspeed.arguments import DropInError

_TRACKER = "latest_checkpointed_iteration.txt"
_CONVERTED = "release"


@dataclass(frozen=True)
class Weights:
    """What a run starts from.

    Attributes:
        directory: A checkpoint; None for random weights or, where the run goes on, its own.
        warnings: What differs from AscendSpeed.
    """

    directory: str | None = None
    warnings: tuple[str, ...] = ()


def initial_weights(load: str | None, save: str, *, finetune: bool) -> Weights:
    """Returns what a run starts from.

    Args:
        load: ``--load``, if it was given.
        save: ``--save``.
        finetune: Whether iteration and optimizer are to start afresh.

    Raises:
        DropInError: There are no weights at `load`, or they are where the run's own must go.
    """
    resumed = _resumed(save)
    if load is None:
        return Weights(warnings=resumed)
    if Path(load).resolve() == Path(save).resolve():
        if finetune or _tracked(load) == _CONVERTED:
            raise DropInError(
                f"the run starts afresh from {load}, where --save writes",
                "give --save another folder",
            )
        return Weights()
    if _holds_anything(Path(load)):
        return Weights(load, (*resumed, *_unfinished(load, finetune)))
    beside = sorted(Path(load).parent.glob(f"{Path(load).name}-tp*"))
    if len(beside) != 1 or not _holds_anything(beside[0]):
        raise DropInError(
            f"--load {load} holds no checkpoint, with which AscendSpeed trained random weights",
            "give the folder that the weights were converted to, or leave --load out to train "
            "random weights",
        )
    # As pathlib drops a leading ./, which would look unlike what the user wrote.
    converted = load.rstrip("/") + beside[0].name.removeprefix(Path(load).name)
    warning = (
        f"--load {load} holds no checkpoint, with which AscendSpeed trained random weights: "
        f"{converted} is taken"
    )
    return Weights(converted, (warning, *resumed))


def _resumed(save: str) -> tuple[str, ...]:
    if _tracked(save) in (None, _CONVERTED):
        return ()
    return (
        f"{save} holds checkpoints, which AscendSpeed wrote over: the run goes on from the newest; "
        "give --save another folder to start again",
    )


def _unfinished(load: str, finetune: bool) -> tuple[str, ...]:
    """Returns a warning where a training's checkpoint is loaded to go on with it elsewhere."""
    if finetune or _tracked(load) in (None, _CONVERTED):
        return ()
    return (
        f"of {load} AscendSpeed also took optimizer and iteration: weights alone are taken; to go "
        "on with that run, give its folder as --save",
    )


def _tracked(directory: str) -> str | None:
    """Returns what a folder of checkpoints says is its newest, an iteration or `_CONVERTED`."""
    tracker = Path(directory) / _TRACKER
    return tracker.read_text("utf-8").strip() if tracker.is_file() else None


def _holds_anything(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())
