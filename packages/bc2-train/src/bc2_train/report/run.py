"""Everything that a run directory tells of a run, in whatever state it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from bc2_ckpt.config import ModelConfig
from bc2_data.errors import Bc2Error
from bc2_train import config as configuration
from bc2_train.config import RunConfig
from bc2_train.environment import FILE as ENVIRONMENT_FILE
from bc2_train.environment import Environment
from bc2_train.metrics.records import Evaluation, RankTimes, Save, StepMetrics
from bc2_train.report.steps import load_metrics, load_records

_LOG_LINES = 30


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, as its directory has it.

    Attributes:
        path: The directory.
        name: By which the report calls it; no other run of the report has it.
        steps: All finished ones, at least one.
        evaluations: Those made.
        saves: Checkpoints saved.
        ranks: What the ranks told each other of their speed.
        environments: One for each start; none of runs of earlier versions.
        config: Its configuration; None where config.yaml is missing or not readable.
        config_text: config.yaml as it stands there.
        model: The dimensions of its model; None where they cannot be had any more.
        log: The last lines of log.txt.
    """

    path: Path
    name: str
    steps: list[StepMetrics]
    evaluations: list[Evaluation]
    saves: list[Save]
    ranks: list[RankTimes]
    environments: list[Environment]
    config: RunConfig | None
    config_text: str
    model: ModelConfig | None
    log: list[str]

    @property
    def devices(self) -> int:
        """Devices of the job: what it wrote down, or what its rates imply."""
        if self.environments:
            return len(self.environments[-1].devices)
        last = self.steps[-1]
        length = last.consumed_tokens / last.consumed_samples
        of_job = sum(length * self.samples(step) for step in self.steps)
        of_device = sum(s.tokens_per_second_per_device * s.step_time for s in self.steps)
        return max(1, round(of_job / of_device))

    @property
    def device(self) -> str:
        """Such as ``8 x NVIDIA H100 80GB HBM3``."""
        names = dict.fromkeys(self.environments[-1].devices) if self.environments else {}
        return f"{self.devices} x {' + '.join(names) or 'device'}"

    @property
    def model_name(self) -> str:
        """What the configuration calls the model."""
        if self.config is None:
            return "unknown"
        name = self.config.model.config
        return Path(name).resolve().name if "/" in name else name

    @property
    def iterations(self) -> int | None:
        """Iterations that the run was to make."""
        return self.config.train.iterations if self.config else None

    @property
    def finished(self) -> bool:
        """Whether the last step is the last one of the whole run."""
        return self.steps[-1].iteration == self.iterations

    @property
    def unusable(self) -> list[StepMetrics]:
        """The steps whose loss or gradient norm was not finite."""
        return [s for s in self.steps if not (math.isfinite(s.loss) and math.isfinite(s.grad_norm))]

    def samples(self, step: StepMetrics) -> int:
        """Returns the samples of a step."""
        return max(1, round(step.samples_per_second * step.step_time))

    def length(self, step: StepMetrics) -> int:
        """Returns the positions that a sample of a step had on average, padding included."""
        tokens = step.tokens_per_second_per_device * step.step_time * self.devices
        return max(1, round(tokens / self.samples(step)))


def load_run(path: Path, name: str) -> Run:
    """Reads a run directory.

    Args:
        path: The directory.
        name: See `Run`.

    Raises:
        TrainError: It holds no finished step, or a line that no run writes.
    """
    text = _read(path / "config.yaml")
    try:
        config = configuration.load(str(path / "config.yaml")) if text else None
    except Bc2Error:  # of another version: shown as it stands
        config = None
    try:
        model = ModelConfig.load(config.model.config) if config else None
    except (Bc2Error, OSError):
        model = None
    return Run(
        path=path,
        name=name,
        steps=load_metrics(path),
        evaluations=load_records(path / "evaluations.jsonl", Evaluation),
        saves=load_records(path / "saves.jsonl", Save),
        ranks=load_records(path / "ranks.jsonl", RankTimes),
        environments=load_records(path / ENVIRONMENT_FILE, Environment),
        config=config,
        config_text=text,
        model=model,
        log=_read(path / "log.txt").splitlines()[-_LOG_LINES:],
    )


def load_runs(paths: list[Path]) -> list[Run]:
    """Reads run directories and gives each the shortest name that no other has."""
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    names = ["/".join(part[-depth:]) for part in parts]
    return [load_run(*pair) for pair in zip(paths, names, strict=True)]


def _read(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""
