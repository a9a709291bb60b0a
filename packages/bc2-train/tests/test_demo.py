"""The whole demonstration, with commands that record how they are called instead of working."""

import argparse
import json
import shlex
import sys
from itertools import islice

import pytest

from bc2_ckpt.config import ModelConfig
from bc2_data.errors import Bc2Error
from bc2_train import demo
from bc2_train.demo import commands, source, steps
from bc2_train.demo.data import TrainingData, look_at
from bc2_train.demo.stdlib_docs import read_entries
from bc2_train.demo.steps import LossError, run_demo
from bc2_train.errors import TrainError

# Appends its own call to calls.jsonl; as bc2-train, writes the metrics of a run, too.
RECORDER = """#!{python}
import json, os, sys
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
with open({log!r}, "a") as file:
    file.write(json.dumps([name, *arguments]) + "\\n")
if name == "bc2-train":
    run = next(a.removeprefix("run.dir=") for a in arguments if a.startswith("run.dir="))
    os.makedirs(run)
    keys = "grad_norm lr step_time samples_per_second tokens_per_second_per_device \
tflops_per_device consumed_samples consumed_tokens skipped memory".split()
    with open(run + "/metrics.jsonl", "w") as file:
        for i in range(1, 61):
            loss = 8.0 - float('{fall}') * (i - 1)
            step = dict.fromkeys(keys, 1.0) | {{"iteration": i, "loss": loss}}
            file.write(json.dumps(step) + "\\n")
"""


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Returns a function that installs the recording commands, and one that reads the calls."""
    folder, log = tmp_path / "bin", tmp_path / "calls.jsonl"
    folder.mkdir()

    def install(fall: float = 0.05) -> None:
        for name in ("bc2-data", "bc2-ckpt", "bc2-train", "bc2-model"):
            script = folder / name
            script.write_text(RECORDER.format(python=sys.executable, log=str(log), fall=fall))
            script.chmod(0o755)
        monkeypatch.setattr(commands.sys, "executable", str(folder / "python"))

    def calls() -> list[list[str]]:
        return [json.loads(line) for line in log.read_text().splitlines()]

    monkeypatch.chdir(tmp_path)
    return install, calls


@pytest.fixture
def model(tmp_path):
    """A user's model, as far as anything but the commands looks at it."""
    directory = tmp_path / "My-Model"
    directory.mkdir()
    config = ModelConfig(
        vocab_size=500,
        hidden_size=16,
        intermediate_size=24,
        num_layers=1,
        num_heads=2,
        position_embedding="rotary",
    )
    (directory / "config.json").write_text(json.dumps(config.to_hf()))
    return directory


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    turn = {"Human": "<|Human|>: Hi<eoh>\n", "MOSS": "<|MOSS|>: Hello<eom>\n"}
    path.write_text(json.dumps({"chat": {"turn_1": turn}}) + "\n")
    return path


def settings(call: list[str]) -> dict[str, str]:
    pairs = [call[i + 1] for i, part in enumerate(call) if part == "--set"]
    return dict(pair.split("=", 1) for pair in pairs)


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def test_the_job_by_default(record, tmp_path, capfd, monkeypatch):
    install, calls = record
    install()
    # A part of the library is enough for a tokenizer and takes a fraction of the time.
    monkeypatch.setattr(source, "read_entries", lambda: islice(read_entries(), 1500))
    run_demo(tmp_path / "out", None, None)
    out = tmp_path / "out"
    made = calls()
    assert [call[:2] for call in made] == [
        ["bc2-data", "tokenize"],
        ["bc2-data", "tokenize"],
        ["bc2-ckpt", "convert"],
        ["bc2-train", "run"],
        ["bc2-ckpt", "convert"],
        ["bc2-model", "generate"],
    ]
    alpaca, moss, convert, train, export, generate = made
    # What one command writes is what the next one reads.
    assert option(alpaca, "--input") == str(out / "source/alpaca.parquet")
    assert option(alpaca, "--tokenizer") == str(out / "start-hf")
    assert option(moss, "--handler") == "moss"
    assert option(convert, "--input") == str(out / "start-hf")
    values = settings(train)
    assert values["model.init"] == option(convert, "--output")
    assert values["data.prefix"] == option(alpaca, "--output-prefix") + "_text_document"
    assert values["data.kind"] == "pretrain"
    assert values["parallel.tensor"] == option(train, "--nproc-per-node") == "2"
    assert option(export, "--input") == values["run.dir"] + "/checkpoints"
    assert option(export, "--output") == generate[2] == str(out / "hf")
    # The inputs are real.
    assert (out / "start-hf/tokenizer.model").stat().st_size > 10_000
    assert ModelConfig.load(out / "start-hf").position_embedding == "alibi"
    summary = (out / "summary.md").read_text()
    assert "| 2 CPU processes | Baichuan2-13B in miniature (7.5 M parameters) | 60 |" in summary
    assert "fell by 35%: from 7.900, the mean of the first 5 steps, to 5.150" in summary
    assert "](run/loss.png)" in summary
    assert (out / "run/loss.png").read_bytes().startswith(b"\x89PNG")
    printed = capfd.readouterr().out
    assert "[9/9] Summarise" in printed
    # The conversations are there for the command that is shown last.
    fine_tuning = settings(shlex.split(printed.rpartition("\n$ ")[2].replace("\\\n", "")))
    assert fine_tuning["data.prefix"] == option(moss, "--output-prefix")
    assert fine_tuning["model.init"] == option(export, "--output")


def test_the_users_own_model_and_data(record, tmp_path, model, chats, capfd):
    install, calls = record
    install(fall=0.0)  # a fine-tuned model need not improve in 60 steps
    run_demo(tmp_path / "out", model, chats)
    tokenise, convert, train, *_ = calls()
    assert tokenise[2:] == [
        *("--input", str(chats), "--tokenizer", str(model), "--handler", "moss"),
        *("--max-length", "257", "--overlong", "truncate"),
        *("--output-prefix", str(tmp_path / "out/tokens/chats")),
    ]
    assert option(convert, "--input") == str(model)
    values = settings(train)
    assert values["data.kind"] == "instruction"
    assert values["data.prefix"] == str(tmp_path / "out/tokens/chats")
    assert values["model.config"] == str(model)
    assert values["optimizer.lr"] == "2e-5"
    assert "My-Model" in (tmp_path / "out/summary.md").read_text()
    assert "[6/6] Summarise" in capfd.readouterr().out
    assert not (tmp_path / "out/source").exists()


@pytest.mark.parametrize("fall", [0.03, float("nan")])
def test_a_loss_that_hardly_falls_is_a_failed_check(record, tmp_path, monkeypatch, fall):
    install, _ = record
    install(fall=fall)
    for name in ("_write_source", "_make_tokenizer", "_make_model"):
        monkeypatch.setattr(steps.Demo, name, lambda self: None)
    with pytest.raises(LossError, match="at least 25% is expected") as caught:
        run_demo(tmp_path / "out", None, None)
    assert caught.value.exit_status == 1
    assert (tmp_path / "out/summary.md").exists()


def test_what_exists_is_only_overwritten_when_asked_and_the_rest_stays(
    record, tmp_path, model, chats
):
    install, calls = record
    install()
    out = tmp_path / "out"
    (out / "run").mkdir(parents=True)
    (out / "run" / "old.txt").write_text("old")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(Bc2Error, match="run exists already"):
        run_demo(out, model, chats)
    assert (out / "run" / "old.txt").exists()
    run_demo(out, model, chats, overwrite=True)
    assert not (out / "run" / "old.txt").exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert len(calls()) == 5


def test_an_input_is_never_overwritten(tmp_path, model, chats):
    trained = tmp_path / "out" / "hf"
    trained.parent.mkdir()
    model.rename(trained)
    with pytest.raises(TrainError, match="hf would be overwritten"):
        run_demo(tmp_path / "out", trained, chats, overwrite=True)
    assert (trained / "config.json").exists()


def test_a_model_that_is_none_is_refused_before_anything_is_written(tmp_path, chats):
    with pytest.raises(Bc2Error, match="no model config at"):
        run_demo(tmp_path / "out", tmp_path / "missing", chats)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "handler", "kind"),
    [
        ({"text": "a"}, "text", "pretrain"),
        ({"instruction": "a", "output": "b", "text": "a b"}, "text", "pretrain"),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca", "instruction"),
        ({"chat": {}, "conversation_id": 1}, "moss", "instruction"),
    ],
)
def test_the_format_of_a_file_is_found_out(tmp_path, row, handler, kind):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert look_at(path) == TrainingData(path, handler)
    assert look_at(path).kind == kind


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", '{"body": "a"}\n', "rows.jsonl, line 1 has none of the fields text, chat"),
        ("rows.jsonl", "{\n", "rows.jsonl holds no readable row"),
        ("rows.jsonl", "", "rows.jsonl is empty"),
        ("rows.xyz", "a", "ending '.xyz' is unknown"),
    ],
)
def test_a_file_of_no_known_format_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(Bc2Error, match=message):
        look_at(path)


def test_the_arguments_of_the_command(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(steps, "run_demo", lambda *given, **named: seen.append((given, named)))
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    demo.main(parser.parse_args([]))
    demo.main(parser.parse_args(["--out", "o", "--model", "m", "--data", "d.jsonl", "--overwrite"]))
    path = type(tmp_path)
    assert seen == [
        ((path("demo-run"), None, None), {"overwrite": False}),
        ((path("o"), path("m"), path("d.jsonl")), {"overwrite": True}),
    ]
