"""The main job from end to end: from text to a trained model that Hugging Face code loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bc2_ckpt.config import ModelConfig
from bc2_data.atomic import new_directory, refuse_existing, remove, write_text
from bc2_train.demo.commands import (
    Step,
    command_line,
    find_script,
    run_command,
    run_steps,
    say,
)
from bc2_train.demo.data import TrainingData, look_at
from bc2_train.demo.model import DEMO_CONFIG, make_checkpoint
from bc2_train.demo.source import build_source
from bc2_train.errors import TrainError

ITERATIONS = 60
PROCESSES = 2
SEQ_LENGTH = 256
SMALLEST_FALL = 0.25
"""By how much the loss of the demonstration's own model and data must fall at least."""

_FINE_TUNING_RATE = "2e-5"  # Baichuan2's own for fine-tuning; the recipe's is for random weights
_COMPARED_STEPS = 5
_PROMPT = "Below is an instruction"  # how every row of Alpaca begins


class LossError(TrainError):
    """The loss did not fall as it must."""

    exit_status = 1


class Demo:
    """One run of the main job.

    Args:
        out: Everything is written here.
        model: A Hugging Face checkpoint with its tokenizer; None for a small one made here.
        data: A file of rows in a format that bc2-data reads; None for Python's documentation.
    """

    def __init__(self, out: Path, model: Path | None, data: Path | None) -> None:
        self._makes_model = model is None
        self._makes_data = data is None
        self._config = DEMO_CONFIG if model is None else ModelConfig.load(model)
        self._rate = {} if model is None else {"optimizer.lr": _FINE_TUNING_RATE}
        self._source = out / "source"
        self._tokenizer = out / "tokenizer"
        self._start = model or out / "start-hf"
        self._start_megatron = out / "start-torch-dist"
        self._tokens = out / "tokens"
        self._run = out / "run"
        self._trained = out / "hf"
        self._summary = out / "summary.md"
        self._data = (
            TrainingData(self._source / "alpaca.parquet", "text") if data is None else look_at(data)
        )

    @property
    def outputs(self) -> list[Path]:
        """Everything that the job may write."""
        made = [self._start] if self._makes_model else []
        return [
            *made,
            self._source,
            self._tokenizer,
            self._start_megatron,
            self._tokens,
            self._run,
            self._trained,
            self._summary,
        ]

    def steps(self) -> list[Step]:
        """Returns the steps, those left out that the user's own model or data make needless."""
        steps = []
        if self._makes_model or self._makes_data:
            steps.append(Step("Write Python's documentation as training data", self._write_source))
        if self._makes_model:
            steps.append(Step("Train a tokenizer with Baichuan2's settings", self._make_tokenizer))
            steps.append(Step("Make a small Baichuan2-13B with random weights", self._make_model))
        return [
            *steps,
            Step("Tokenise", self._tokenise),
            Step("Convert the checkpoint from Hugging Face to Megatron", self._convert),
            Step(f"Train on {PROCESSES} processes, tensor parallel", self._train),
            Step("Convert the trained model back to Hugging Face", self._convert_back),
            Step("Generate with the trained model", self._generate),
            Step("Summarise", self._summarise),
        ]

    def _write_source(self) -> None:
        source = build_source(self._source)
        say(f"{source.alpaca}: {source.rows:,} rows in Alpaca's format")
        say(f"{source.moss}: {source.conversations:,} conversations in MOSS's format")

    def _make_tokenizer(self) -> None:
        from pyarrow import parquet

        from bc2_data.tokenizer_training import train_tokenizer

        texts = parquet.read_table(self._source / "alpaca.parquet", columns=["text"])["text"]
        with new_directory(self._tokenizer) as partial:
            train_tokenizer(texts.to_pylist(), partial, self._config.vocab_size)
        say(f"{self._tokenizer}: {self._config.vocab_size:,} pieces")

    def _make_model(self) -> None:
        make_checkpoint(self._start, self._config, self._tokenizer)
        say(f"{self._start}: {self._config.num_parameters:,} parameters")

    def _tokenise(self) -> None:
        wanted = [self._data]
        if (
            self._makes_data
        ):  # both data sets of AscendSpeed's README; the second is for fine-tuning
            wanted.append(TrainingData(self._source / "moss.jsonl", "moss"))
        for data in wanted:
            run_command(
                "bc2-data",
                "tokenize",
                *("--input", data.path),
                *("--tokenizer", self._start),
                *("--handler", data.handler),
                *data.options(SEQ_LENGTH),
                *("--output-prefix", self._tokens / data.path.stem),
            )

    def _convert(self) -> None:
        self._run_convert(self._start, self._start_megatron, "torch-dist")

    def _convert_back(self) -> None:
        self._run_convert(self._run / "checkpoints", self._trained, "hf")

    def _run_convert(self, source: Path, output: Path, form: str) -> None:
        run_command("bc2-ckpt", "convert", "--input", source, "--output", output, "--to", form)

    def _train(self) -> None:
        settings = {
            "model.config": self._start,
            "model.init": self._start_megatron,
            "data.kind": self._data.kind,
            "data.prefix": self._data.prefix(self._tokens),
            "train.iterations": ITERATIONS,
            "checkpoint.interval": ITERATIONS // 2,
            "run.dir": self._run,
        }
        run_command("bc2-train", *_training(settings | self._rate))

    def _fine_tuning(self) -> str:
        """Returns the command that goes on with the conversations, which `_tokenise` prepared."""
        settings = {
            "model.config": self._trained,
            "model.init": self._trained,
            "data.kind": "instruction",
            "data.prefix": self._tokens / "moss",
            "train.iterations": ITERATIONS,
            "run.dir": self._run.with_name("fine-tuning"),
        }
        return command_line([find_script("bc2-train"), *_training(settings | self._rate)])

    def _generate(self) -> None:
        run_command(
            "bc2-model",
            "generate",
            self._trained,
            *("--device", "cpu"),
            *("--prompt", _PROMPT),
            *("--max-new-tokens", "100"),
            *("--temperature", "0.7"),
        )

    def _summarise(self) -> None:
        from bc2_train.plotting import plot_loss
        from bc2_train.report import load_metrics, mean_loss, summary_table

        metrics = load_metrics(self._run)
        plot_loss(metrics, self._run / "loss.png")
        first = mean_loss(metrics[:_COMPARED_STEPS])
        last = mean_loss(metrics[-_COMPARED_STEPS:])
        fall = 1 - last / first
        table = summary_table(
            metrics, device=f"{PROCESSES} CPU processes", model=self._model_name()
        )
        loss = (
            f"The loss fell by {fall:.0%}: from {first:.3f}, the mean of the first "
            f"{_COMPARED_STEPS} steps, to {last:.3f}, that of the last {_COMPARED_STEPS}."
        )
        plot = (self._run / "loss.png").relative_to(self._summary.parent)
        write_text(self._summary, f"# Summary\n\n{table}\n{loss}\n\n![Training loss]({plot})\n")
        say(f"{table}\n{loss}\n")
        for path, what in (
            (self._summary, "this summary"),
            (self._run / "loss.png", "the loss of every step"),
            (self._run / "metrics.jsonl", "what was measured in every step"),
            (self._trained, "the trained model"),
        ):
            say(f"{path}: {what}")
        if self._makes_data:
            say(f"\nTo go on with conversations, as in fine-tuning:\n$ {self._fine_tuning()}")
        defaults = self._makes_model and self._makes_data  # nothing is known of the user's
        if defaults and not fall >= SMALLEST_FALL:  # so that NaN is an error, too
            raise LossError(
                f"the loss fell by {fall:.0%}, where at least {SMALLEST_FALL:.0%} is expected",
                f"look at {self._run / 'loss.png'} and {self._run / 'log.txt'}",
            )

    def _model_name(self) -> str:
        name = "Baichuan2-13B in miniature" if self._makes_model else self._start.resolve().name
        return f"{name} ({self._config.num_parameters / 1e6:,.1f} M parameters)"


def _training(settings: Mapping[str, object]) -> list[str]:
    """Returns the arguments of ``bc2-train`` for a run of the small recipe on this machine."""
    shared = {"device": "cpu", "parallel.tensor": PROCESSES, "data.seq_length": SEQ_LENGTH}
    pairs = [f"{key}={value}" for key, value in {**shared, **settings}.items()]
    options = [part for pair in pairs for part in ("--set", pair)]
    return ["run", "tiny-13b", "--nproc-per-node", str(PROCESSES), *options]


def run_demo(out: Path, model: Path | None, data: Path | None, *, overwrite: bool = False) -> None:
    """Runs the main job: tokenise, convert, train, convert back, generate, summarise.

    Leaves ``run/metrics.jsonl``, ``run/loss.png``, ``hf/`` and ``summary.md`` in `out`.

    Args:
        out: Everything is written here; made where it does not exist.
        model: A Hugging Face checkpoint with its tokenizer; None for a small one made here.
        data: A file of rows in a format that bc2-data reads; None for Python's documentation.
        overwrite: Whether what an earlier run left in `out` may be replaced.

    Raises:
        Bc2Error: A step failed, an input is none, or what would be written exists already.
    """
    demo = Demo(out, model, data)
    for given in (model, data):
        if given and any(given.resolve().is_relative_to(path.resolve()) for path in demo.outputs):
            raise TrainError(f"{given} would be overwritten", "choose another --out")
    refuse_existing(*demo.outputs, overwrite=overwrite)
    for path in demo.outputs:
        remove(path)
    run_steps(demo.steps())
