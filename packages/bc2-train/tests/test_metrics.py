"""What a run says of its steps, and to whom."""

from __future__ import annotations

import errno
import gzip
import json
import math
import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from bc2_train.config import Batch, Data, Metrics, Model, Optimizer, Run, RunConfig, Train
from bc2_train.errors import TrainError
from bc2_train.launch.rendezvous import free_port
from bc2_train.metrics import Evaluation, MetricsWriter, RankTimes, Save, StepMetrics
from bc2_train.metrics.profiler import StepProfiler
from bc2_train.metrics.scalars import scalars
from bc2_train.metrics.sinks import open_sinks


def step(iteration: int, **values: Any) -> StepMetrics:
    defaults = {
        "loss": 2.5,
        "grad_norm": 1.5,
        "lr": 1e-3,
        "step_time": 0.5,
        "samples_per_second": 16.0,
        "tokens_per_second_per_device": 512.0,
        "tflops_per_device": 0.25,
        "consumed_samples": 8 * iteration,
        "consumed_tokens": 512 * iteration,
        "skipped": 0,
        "memory": 1 << 30,
        "data_time": 0.01,
        "forward_backward_time": 0.4,
        "optimizer_time": 0.05,
    }
    return StepMetrics(iteration=iteration, **{**defaults, **values})


def config(run_dir: Path, **metrics: Any) -> RunConfig:
    run_dir.mkdir(exist_ok=True)
    return RunConfig(
        model=Model(config="baichuan2-7b"),
        data=Data(kind="pretrain", prefix="data", seq_length=64),
        batch=Batch(micro=1, global_=8),
        optimizer=Optimizer(lr=1e-3),
        train=Train(iterations=100),
        run=Run(dir=str(run_dir)),
        metrics=Metrics(**metrics),
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_kind_of_record_has_its_file(tmp_path: Path) -> None:
    times = RankTimes(iteration=1, data=[0.1, 0.2], local=[math.nan, 1.0], probe=[1.0, 2.0])
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(step(1, grad_norm=math.nan))
        writer.write(Evaluation(iteration=1, loss=2.0, tokens=100, seconds=1.5))
        writer.write(Save(iteration=1, seconds=0.25))
        writer.write(times)
    (metrics,) = lines(tmp_path / "metrics.jsonl")
    assert metrics["grad_norm"] is None
    assert (metrics["data_time"], metrics["forward_backward_time"]) == (0.01, 0.4)
    assert lines(tmp_path / "evaluations.jsonl")[0]["seconds"] == 1.5
    assert lines(tmp_path / "saves.jsonl") == [{"iteration": 1, "seconds": 0.25}]
    assert lines(tmp_path / "ranks.jsonl")[0]["local"] == [None, 1.0]


def test_a_resumed_run_takes_back_what_it_will_do_again(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, 0) as writer:
        for iteration in (1, 2, 3):
            writer.write(step(iteration))
        writer.write(Save(iteration=2, seconds=1.0))
        writer.write(Save(iteration=3, seconds=1.0))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 4, "lo')
    MetricsWriter(tmp_path, 2).__exit__(None, None, None)
    assert [line["iteration"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 2]
    assert [line["iteration"] for line in lines(tmp_path / "saves.jsonl")] == [2]


def test_a_full_disk_at_a_restart_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(step(1))

    def full(*args: Any, **kwargs: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        MetricsWriter(tmp_path, 1)
    assert [line["iteration"] for line in lines(tmp_path / "metrics.jsonl")] == [1]


def test_tensorboard_has_the_names_and_axes_of_ascendspeed(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(step(3))
        writer.write(Evaluation(iteration=3, loss=2.0, tokens=100))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    # Those of `training_log` and `evaluate_and_print_results` in Megatron-DeepSpeed's training.py.
    expected = {
        "lm-loss-training/lm loss": 2.5,
        "grad-norm/grad-norm": 1.5,
        "learning-rate/learning-rate": 1e-3,
        "batch-size/batch-size": 8,
        "loss-scale/loss-scale": 1.0,
        "iteration-time/iteration-time": 0.5,
    }
    for tag, value in expected.items():
        for axis, place in (("", 3), (" vs samples", 24), (" vs tokens", 1536)):
            (event,) = events.Scalars(tag + axis)
            assert (event.step, event.value) == (place, pytest.approx(value)), tag + axis
    assert events.Scalars("lm-loss-validation/lm loss validation")[0].value == 2.0
    perplexity = events.Scalars("lm-loss-validation/lm loss validation ppl")[0].value
    assert perplexity == pytest.approx(math.exp(2.0))


def test_no_sink_is_opened_unasked(tmp_path: Path) -> None:
    assert open_sinks(config(tmp_path / "run"), torch.device("cpu")) == []


def test_prometheus_scrapes_the_newest_values(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    port = free_port()
    sinks = open_sinks(config(tmp_path / "first run", prometheus_port=port), torch.device("cpu"))
    with MetricsWriter(tmp_path, 0, sinks) as writer:
        for iteration in (1, 2):
            writer.write(step(iteration, loss=3.0 - iteration))
        writer.write(Evaluation(iteration=2, loss=2.0, tokens=100))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        with pytest.raises(TrainError, match=f"{port} cannot be listened on"):
            open_sinks(config(tmp_path / "second", prometheus_port=port), torch.device("cpu"))
    assert 'bc2_lm_loss_training_lm_loss{run="first run"} 1.0\n' in text
    assert 'bc2_iteration{run="first run"} 2.0\n' in text
    assert 'bc2_lm_loss_validation_lm_loss_validation{run="first run"} 2.0\n' in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


class FakeWandb(types.ModuleType):
    """As much of wandb as we call."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("wandb")
        self.starts: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.finished = 0

    def init(self, **values: Any) -> FakeWandb:
        self.starts.append(values)
        return self

    def define_metric(self, name: str, **options: Any) -> None:
        assert name in ("iteration", "*")

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished += 1


def test_weights_and_biases_goes_on_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    settings = config(tmp_path / "run", wandb="baichuan")
    for _ in range(2):
        sinks = open_sinks(settings, torch.device("cpu"))
        with MetricsWriter(tmp_path / "run", 0, sinks) as writer:
            writer.write(step(1))
    first, second = wandb.starts
    assert first == second
    assert (first["project"], first["name"], first["resume"]) == ("baichuan", "run", "allow")
    assert first["config"]["batch"]["global"] == 8
    assert wandb.logged == [{"iteration": 1, **scalars(step(1))}] * 2
    assert wandb.finished == 2


def test_the_real_wandb_writes_a_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    sinks = open_sinks(config(tmp_path / "run", wandb="baichuan"), torch.device("cpu"))
    with MetricsWriter(tmp_path / "run", 0, sinks) as writer:
        writer.write(step(1))
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    name = (tmp_path / "run" / "wandb-id.txt").read_text().strip()
    assert name in written.name
    assert b"lm-loss-training/lm loss" in written.read_bytes()


@pytest.mark.parametrize("library", ["wandb", "prometheus_client"])
def test_a_library_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    asked = {"wandb": "project"} if library == "wandb" else {"prometheus_port": 1}
    with pytest.raises(TrainError, match=library) as caught:
        open_sinks(config(tmp_path / "run", **asked), torch.device("cpu"))
    assert f"bc2-train[{library.removesuffix('_client')}]" in caught.value.hint


def test_the_profiler_records_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", profile=2)
    (profiler,) = open_sinks(settings, torch.device("cpu"))
    matrix = torch.ones(8, 8)
    for iteration in range(1, 10):
        with torch.profiler.record_function(f"work of step {iteration}"):
            matrix @ matrix
        profiler.write(step(iteration))
    profiler.close()
    with gzip.open(tmp_path / "run" / "profile" / "rank_0.json.gz") as file:
        names = {event["name"] for event in json.load(file)["traceEvents"]}
    # Five settle, one warms up, two are recorded.
    assert {name for name in names if name.startswith("work")} == {
        "work of step 7",
        "work of step 8",
    }
    assert "aten::mm" in names


def test_on_an_npu_the_profiler_of_torch_npu_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Profile:
        def __init__(self, **options: Any) -> None:
            calls.append(options)

        def start(self) -> None:
            calls.append("start")

        def step(self) -> None:
            calls.append("step")

        def stop(self) -> None:
            calls.append("stop")

    profiler = types.SimpleNamespace(
        profile=Profile,
        ProfilerActivity=types.SimpleNamespace(CPU="cpu", NPU="npu"),
        schedule=lambda **steps: steps,
        tensorboard_trace_handler=lambda folder: folder,
    )
    module = types.ModuleType("torch_npu")
    module.profiler = profiler  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_npu", module)
    device = types.SimpleNamespace(type="npu")
    recorder = StepProfiler(tmp_path / "profile", device, settling=5, steps=3)  # type: ignore[arg-type]
    recorder.write(step(1))
    recorder.write(Save(iteration=1, seconds=1.0))
    recorder.close()
    options = calls[0]
    assert options["activities"] == ["cpu", "npu"]
    assert options["schedule"] == {"wait": 5, "warmup": 1, "active": 3, "repeat": 1}
    assert options["on_trace_ready"] == str(tmp_path / "profile")
    assert calls[1:] == ["start", "step", "stop"]
