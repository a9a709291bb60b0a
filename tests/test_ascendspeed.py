"""What AscendSpeed's command lines are turned into, and what is said about them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ascendspeed_standins import REPOSITORY
from bc2_data.errors import Bc2Error
from conftest import write_checkpoint

sys.path.insert(0, str(REPOSITORY / "tools"))

from ascendspeed import ckpt, data, train, weights
from ascendspeed.arguments import DropInError
from ascendspeed.native import Native, carry_out

DATA = ["--input", "in.jsonl", "--tokenizer-name-or-path", "hf", "--output-prefix", "out"]
QUIET = [
    *("13B", "--save", "ckpt", "--data-path", "data"),
    *("--layernorm-epsilon", "1e-6", "--lm-norm-weight"),
]
Translate = Callable[[Sequence[str] | None], Native]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keys(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the keys of bc2-train that a command line sets."""
    options = train.translate(arguments).options
    return dict(option[1].split("=", 1) for option in options if option[0] == "--set")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--lr 3e-4 --min-lr 0", {"optimizer.lr": "0.0003", "optimizer.min_lr": "0.0"}),
        ("", {"optimizer.schedule": "linear", "optimizer.min_lr": "0.0"}),
        ("--weight-decay 0.2 --clip-grad 0", {"optimizer.weight_decay": "0.2"}),
        ("", {"optimizer.clip": None, "optimizer.eps": None, "train.seed": None}),
        ("", {"evaluation.interval": None, "evaluation.batches": "100"}),
        ("--lr-decay-style cosine", {"optimizer.schedule": None}),
        ("--adam-beta2 0.98", {"optimizer.betas": "[0.9, 0.98]"}),
        ("", {"optimizer.betas": "[0.9, 0.999]"}),
        ("--train-iters 40 --lr-warmup-fraction 0.1", {"optimizer.warmup": "4"}),
        ("--lr-warmup-iters 7", {"optimizer.warmup": "7"}),
        ("--train-samples 640 --global-batch-size 64", {"train.iterations": "10"}),
        ("--micro-batch-size 2 --nproc_per_node 8", {"batch.global": "16"}),
        (
            "--micro-batch-size 2 --nproc-per-node 8 --tensor-model-parallel-size 4",
            {"batch.global": "4"},
        ),
        ("", {"precision": "float32"}),
        ("--bf16", {"precision": None}),
        ("--fp16", {"precision": "float16"}),
        ("--split 8,1,1", {"data.split": "[0.8, 0.1, 0.1]"}),
        ("--split 949,50,1", {"data.split": None}),
        (
            "--is-instruction-dataset --padding-attention-mask",
            {
                "data.kind": "instruction",
                "data.split": "[1.0, 0.0, 0.0]",
                "evaluation.interval": "0",
            },
        ),
        ("--eval-iters 0", {"evaluation.interval": "0"}),
        ("--split 100,0,0", {"data.split": "[1.0, 0.0, 0.0]", "evaluation.interval": "0"}),
        ("--data-path 2023", {"data.prefix": '"2023"'}),
        ("--reset-attention-mask", {"data.cross_document_attention": "false"}),
        ("--tensor-model-parallel-size 8 --sequence-parallel", {"parallel.sequence": None}),
        ("--tensor-model-parallel-size 2", {"parallel.sequence": "false"}),
        ("--sequence-parallel", {"parallel.tensor": "1", "parallel.sequence": "false"}),
        (
            "--pipeline-model-parallel-size 4 --num-layers-per-virtual-pipeline-stage 2",
            {"parallel.pipeline": "4", "parallel.virtual_pipeline": "4"},
        ),
        ("--checkpoint-activations", {"train.recompute": "full"}),
        ("--recompute-granularity selective", {"train.recompute": "selective"}),
        (
            "--data-path 0.3 a 0.7 b",
            {"data.prefix": "a", "data.prefix_weight": "0.3", "data.blend": '{"b": 0.7}'},
        ),
        ("--seed 1 --set train.seed=2", {"train.seed": "2"}),
    ],
)
def test_what_an_argument_becomes(arguments: str, expected: dict[str, str | None]) -> None:
    given = ["7B", "--save", "ckpt", "--data-path", "data", *arguments.split()]
    found = keys(given)
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("translate", "arguments", "message", "hint"),
    [
        (data.translate, [*DATA, "--worker", "4"], "--worker", "'--workers'"),
        (data.translate, [*DATA, "--handler-name", "MOSSHandler"], "MOSSHandler", "MOSSMulti"),
        (data.translate, [*DATA, "--handler-name", "MOSSInstructionHandler"], "nothing", "Multi"),
        (data.translate, [*DATA, "--tokenizer-type", "GPT2BPETokenizer"], "GPT2", "PretrainedFrom"),
        (data.translate, [*DATA, "--json-keys", "a", "b"], "2 columns", "once for each"),
        (data.translate, [*DATA, "--split-sentences"], "nothing in the place", "BERT"),
        (data.translate, [*DATA, "--workers", "many"], "invalid int value", "--help"),
        (data.translate, DATA[2:], "required: --input", "--help"),
        (ckpt.translate, ["--merge-mpl"], "--merge-mpl", "'--merge-mlp'"),
        (ckpt.translate, ["--input-model-dir", "nowhere"], "no model config", ""),
        (ckpt.translate, ["--input-model-dir", "hf", "--type", "30B"], "30B", "13B"),
        (ckpt.translate, ["--input-model-dir", "hf", "--added-token-num", "1"], "is 1", "leave"),
        (ckpt.translate, ["--deepspeed"], "--deepspeed", "any checkpoint"),
        (train.translate, ["7B", "--mico-batch-size", "2"], "--mico-batch-size", "--micro-batch"),
        (train.translate, ["7B", "--lora-r", "8"], "--lora-r", "lora.rank"),
        (train.translate, ["7B", "--attention-dropout", "0.1"], "above 0", "0"),
        (train.translate, ["7B", "--lr-decay-iters", "5"], "decays over all", "leave it out"),
        (train.translate, ["7B", "--split", "1"], "not three shares", "949,50,1"),
        (train.translate, ["7B", "--data-path", "a", "b"], "pairs", "0.3"),
        (train.translate, ["7B", "--load", "empty"], "holds no checkpoint", "leave --load out"),
        (train.translate, ["8B"], "8B", "7B"),
    ],
)
def test_what_stops_a_command(
    translate: Translate, arguments: list[str], message: str, hint: str
) -> None:
    write_checkpoint(Path("hf"), "rotary")
    if translate is train.translate:
        arguments = [arguments[0], "--save", "ckpt", "--data-path", "data", *arguments[1:]]
    with pytest.raises(Bc2Error) as raised:
        translate(arguments)
    assert message in raised.value.message
    assert hint in raised.value.hint
    assert raised.value.exit_status == 2


def test_an_error_is_two_lines_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    def run(argv: Sequence[str] | None) -> Native:
        return data.translate([*DATA, "--handler-name", "MOSSMultTurnHandler"])

    assert carry_out(run) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first.startswith("error: unknown handler 'MOSSMultTurnHandler'")
    assert second == "hint: did you mean 'MOSSMultiTurnHandler'?"


def test_the_command_that_is_shown_is_the_one_that_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda script, command: ran.append([script, *command[1:]]))
    given = [*DATA[:-1], "a folder/out", "--handler-name", "GeneralInstructionHandler"]
    carry_out(data.translate, given)
    shown = capsys.readouterr()
    assert [line.partition(":")[0] for line in shown.err.splitlines()] == ["warning"]
    typed = shlex.split(shown.out.replace("\\\n", " "), comments=True)
    ((script, *arguments),) = ran
    assert [Path(script).name, *arguments] == typed
    assert typed[:2] == ["bc2-data", "tokenize"]
    assert typed[typed.index("--output-prefix") + 1] == "a folder/out"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "--handler text"),
        ("--json-keys content", "--text-key content"),
        ("--append-eod", "--append-eos"),
        ("--workers 4 --log-interval 1000", "--workers 4 --log-interval 1000"),
        ("--handler-name AlpacaPretrainHandler", "--handler alpaca-pretrain"),
        ("--handler-name GeneralInstructionHandler", "--handler alpaca --template ascendspeed"),
        ("--handler-name MOSSMultiTurnHandler --json-keys chat", "--handler moss"),
        ("--overwrite", "--overwrite"),
    ],
)
def test_what_tokenising_becomes(arguments: str, expected: str) -> None:
    command = " ".join(data.translate([*DATA, *arguments.split()]).command)
    assert command.startswith("bc2-data tokenize --input in.jsonl --tokenizer hf")
    assert expected in command
    assert ("--text-key" in command) == ("--text-key" in expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--type 7B --merge-mlp --pse", "--tp 1 --pp 1 --vocab-divisor 128"),
        ("--pse", "--legacy-names ascendspeed-unmerged"),
        ("--merge-mlp --tensor-model-parallel-size 8 --pipeline-model-parallel-size 2", "--pp 2"),
        ("--merge-mlp --make-vocab-size-divisible-by 8", "--vocab-divisor 8"),
    ],
)
def test_what_converting_becomes(arguments: str, expected: str) -> None:
    write_checkpoint(Path("hf"), "rotary")
    given = ["--input-model-dir", "hf", "--output-model-dir", "out", *arguments.split()]
    command = " ".join(ckpt.translate(given).command)
    assert command.startswith("bc2-ckpt convert --input hf --output out --to megatron-legacy")
    assert expected in command
    assert ("unmerged" in command) == ("--merge-mlp" not in arguments)


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        ("--keep-last-token", "shifted labels twice"),
        ("--layernorm-epsilon 1e-5", "norms would add 1e-05"),
        ("--make-vocab-size-divisible-by 128 --tensor-model-parallel-size 8", "256 padding rows"),
        ("--z-loss-weight 2e-4", "z_loss_weight 0.0"),
        ("--init-method-std 0.01", "initializer_range 0.02"),
        ("--bf16", "rounded ALiBi"),
        ("--is-instruction-dataset --use-flash-attn", "could not fine-tune"),
        ("--is-instruction-dataset", "averaged the loss over each micro batch"),
        ("--is-instruction-dataset", "nothing is evaluated"),
        ("--auto-recompute-device-size 57344", "none is recomputed"),
        ("--data-path x_packed_input_ids_document", "trained from end to end"),
        ("--reset-position-ids", "does nothing without"),
        ("--num-layers 32", "num_layers 32"),
        ("--position-embedding-type rope", "position_embedding rotary"),
    ],
)
def test_a_defect_is_told_where_it_would_show(arguments: str, warning: str) -> None:
    assert train.translate(QUIET).warnings == ()
    warnings = train.translate([*QUIET, *arguments.split()]).warnings
    assert any(warning in told for told in warnings)
    assert all("\n" not in told for told in warnings)


def test_what_is_left_out_is_told() -> None:
    norms, norm_head = train.translate(QUIET[:5]).warnings
    assert "norms would add 1e-05" in norms
    assert "left NormHead out" in norm_head


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        ("--handler-name AlpacaPretrainHandler", "###None"),
        ("--handler-name GeneralInstructionHandler", "straddle"),
        ("--seq-length 4096", "nothing is cut"),
        ("--dataset-impl lazy", "mmap's"),
    ],
)
def test_a_defect_of_tokenising_is_told(arguments: str, warning: str) -> None:
    assert data.translate(DATA).warnings == ()
    (told,) = data.translate([*DATA, *arguments.split()]).warnings
    assert warning in told


def test_the_family_is_checked_against_the_config() -> None:
    write_checkpoint(Path("hf"), "alibi", vocab_size=128)
    given = ["--input-model-dir", "hf", "--merge-mlp", "--type"]
    (told,) = ckpt.translate([*given, "7B"]).warnings
    assert "num_layers 32" in told
    assert "position_embedding rotary" in told
    assert "hf/config.json says 2, 80, 10, alibi: hf/config.json is followed" in told
    (told,) = ckpt.translate([*given, "mine", "--num_layers", "3"]).warnings
    assert "num_layers 3, but hf/config.json says 2" in told
    assert ckpt.translate([*given, "mine", "--num_layers", "2"]).warnings == ()


def checkpoint(path: str, tracker: str = "release") -> str:
    Path(path).mkdir(parents=True)
    Path(path, "latest_checkpointed_iteration.txt").write_text(f"{tracker}\n")
    return path


def test_weights_are_taken_from_load() -> None:
    checkpoint("weight")
    assert weights.initial_weights("weight", "ckpt", finetune=False) == weights.Weights("weight")
    assert weights.initial_weights(None, "ckpt", finetune=False) == weights.Weights()


def test_a_run_goes_on_where_it_saved() -> None:
    checkpoint("ckpt", "100")
    assert weights.initial_weights("./ckpt/", "ckpt", finetune=False) == weights.Weights()
    with pytest.raises(DropInError, match="starts afresh from ckpt"):
        weights.initial_weights("ckpt", "ckpt", finetune=True)
    (told,) = weights.initial_weights(checkpoint("weight"), "ckpt", finetune=False).warnings
    assert "goes on from the newest" in told


def test_converted_weights_are_not_mistaken_for_a_run() -> None:
    checkpoint("ckpt")
    with pytest.raises(DropInError, match="starts afresh from ckpt"):
        weights.initial_weights("ckpt", "./ckpt", finetune=False)
    assert weights.initial_weights(None, "ckpt", finetune=False).warnings == ()


def test_of_another_run_weights_alone_are_taken() -> None:
    started = weights.initial_weights(checkpoint("old", "100"), "new", finetune=False)
    assert started.directory == "old"
    assert "optimizer and iteration" in started.warnings[0]
    assert weights.initial_weights("old", "new", finetune=True).warnings == ()


def test_the_readme_converts_to_another_folder_than_it_loads() -> None:
    Path("weight").mkdir()
    checkpoint("weight-tp8")
    started = weights.initial_weights("./weight", "ckpt", finetune=False)
    assert started.directory == "./weight-tp8"
    assert "./weight-tp8 is taken" in started.warnings[0]
    checkpoint("weight-tp4")
    with pytest.raises(DropInError, match="holds no checkpoint"):
        weights.initial_weights("./weight", "ckpt", finetune=False)
