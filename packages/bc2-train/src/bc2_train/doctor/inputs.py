"""Do data, tokenizer, checkpoint and layout fit each other?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_data.datasets import open_datasets
from bc2_data.tokenizer import load_tokenizer
from bc2_train import preflight
from bc2_train.config import RunConfig
from bc2_train.data.tokenizers import of_another_tokenizer
from bc2_train.doctor.finding import Finding, ok, problem, warning
from bc2_train.errors import TrainError


def check(config: RunConfig, processes: int) -> Iterator[Finding]:
    """Yields what would stop the run, or make it wrong, after it has started."""
    model = ModelConfig.load(config.model.config)
    try:
        preflight.check(config, processes)
        yield ok(f"the layout fits {processes} processes on this host and the model")
    except TrainError as error:
        yield problem(error.message, error.hint)
    tokenizer = Path(config.model.config) / "tokenizer.model"
    if config.model.init != "random":
        reader = open_checkpoint(config.model.init)
        size = sum(info.num_bytes for info in reader.tensors().values()) / 2**30
        yield ok(f"{config.model.init} is a whole checkpoint of {size:,.1f} GiB")
        tokenizer = reader.beside("tokenizer.model") or tokenizer
    yield from _tokenizer(tokenizer, model)
    for prefix in (config.data.prefix, *config.data.blend, *_evaluation(config)):
        yield _data(prefix, config)
    used = tokenizer if tokenizer.is_file() else None
    prefixes = [config.data.prefix, *config.data.blend, *_evaluation(config)]
    for text in of_another_tokenizer(prefixes, used):
        yield warning(text, "bc2-data tokenize, with the model's tokenizer")


def _evaluation(config: RunConfig) -> list[str]:
    return [config.evaluation.prefix] if config.evaluation.prefix else []


def _tokenizer(path: Path, model: ModelConfig) -> Iterator[Finding]:
    if not path.is_file():
        yield ok("there is no tokenizer beside the model to compare the data with")
        return
    size = load_tokenizer(path).vocab_size
    if size > model.vocab_size:
        yield problem(
            f"{path} has {size} tokens, more than the model's {model.vocab_size}",
            "take the tokenizer.model that belongs to the model",
        )
    else:
        yield ok(f"{path}: {size} tokens, within the model's {model.vocab_size}")


def _data(prefix: str, config: RunConfig) -> Finding:
    dataset = next(iter(open_datasets(Path(prefix)).values()))
    tokens = int(dataset.lengths.sum())
    step = config.batch.global_ * config.data.seq_length
    text = f"{prefix}: {len(dataset):,} sequences, {tokens:,} tokens"
    if config.data.kind == "pretrain" and tokens <= step:
        return problem(
            f"{text}, fewer than the {step:,} of one step",
            "give more data, or set batch.global or data.seq_length lower",
        )
    return ok(text)
