"""Reports of runs whose numbers are known beforehand."""

import json
import math
from dataclasses import asdict

import pytest

from bc2_ckpt.config import PRESETS
from bc2_train.errors import TrainError
from bc2_train.metrics import StepMetrics
from bc2_train.plotting import moving_mean, plot_loss
from bc2_train.report import load_metrics, mean_loss, steady_rates, summary_table
from bc2_train.throughput import (
    ascendspeed_flops,
    samples_per_second,
    tflops_per_device,
    tokens_per_second_per_device,
)


def step(iteration: int, step_time: float = 24.97, loss: float = 2.0) -> StepMetrics:
    """One step of the 7B run of AscendSpeed's README: 128 samples of 4096 tokens on 8 NPUs."""
    flops = ascendspeed_flops(
        PRESETS["baichuan2-7b"], batch_size=128, seq_length=4096, padded_vocab_size=125_952
    )
    return StepMetrics(
        iteration=iteration,
        loss=loss,
        grad_norm=1.0,
        lr=1e-6,
        step_time=step_time,
        samples_per_second=samples_per_second(128, step_time=step_time),
        tokens_per_second_per_device=tokens_per_second_per_device(
            128, 4096, step_time=step_time, devices=8
        ),
        tflops_per_device=tflops_per_device(flops, step_time=step_time, devices=8),
        consumed_samples=128 * iteration,
        consumed_tokens=128 * 4096 * iteration,
        skipped=0,
        memory=1 << 30,
        data_time=0.1,
        forward_backward_time=step_time - 1.1,
        optimizer_time=1.0,
    )


@pytest.fixture
def run_dir(tmp_path):
    """A run of 20 steps whose first five took far longer than the others."""
    metrics = [step(i, step_time=300.0 if i <= 5 else 24.97) for i in range(1, 21)]
    lines = [json.dumps(asdict(one)) + "\n" for one in metrics]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    return tmp_path


def test_metrics_come_back_as_they_were_written(run_dir):
    metrics = load_metrics(run_dir)
    assert [one.iteration for one in metrics] == list(range(1, 21))
    assert metrics[0] == step(1, step_time=300.0)


def test_a_line_that_a_killed_run_left_unfinished_is_no_step(run_dir):
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 21, "loss": 2')
    assert load_metrics(run_dir)[-1].iteration == 20


def test_a_later_key_is_no_error(run_dir):
    line = json.dumps({**asdict(step(21)), "temperature": 40}) + "\n"
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write(line)
    assert load_metrics(run_dir)[-1] == step(21)


def test_a_loss_that_is_no_number_stays_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(asdict(step(1, loss=math.nan))) + "\n")
    assert math.isnan(mean_loss(load_metrics(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no finished step"),
        ("{\n", r"metrics\.jsonl, line 1 is not JSON"),
        ("[]\n", r"metrics\.jsonl, line 1 lacks iteration"),
        ('{"iteration": 1, "loss": 2.0}\n', "line 1 lacks grad_norm, lr, step_time"),
    ],
)
def test_a_file_that_no_run_wrote_is_named(tmp_path, content, message):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(TrainError, match=message):
        load_metrics(tmp_path)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(TrainError, match=r"holds no metrics\.jsonl"):
        load_metrics(tmp_path)


def test_the_table_gives_the_published_numbers_and_leaves_the_warm_up_out(run_dir):
    table = summary_table(load_metrics(run_dir), device="8 x NPU", model="Baichuan2-7B")
    header, rule, row, blank, window = table.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["8 x NPU", "Baichuan2-7B", "20", "5.1262", "2624.6", "24.97", "124.45"]
    assert header.count("|") == rule.count("|") == row.count("|") == 8
    assert blank == ""
    assert window == "Rates are those of iterations 6 to 20."


def test_rates_are_work_over_time():
    # Half of the steps at twice the speed: the mean of the rates would be 1.5 times the slow one.
    metrics = [step(i, step_time=20.0 if i % 2 else 10.0) for i in range(1, 16)]
    rates = steady_rates(metrics)
    assert (rates.first, rates.last) == (6, 15)
    assert rates.step_time == pytest.approx(15.0)
    assert rates.samples_per_second == pytest.approx(128 / 15.0)
    assert rates.tokens_per_second_per_device == pytest.approx(128 * 4096 / 15.0 / 8)


@pytest.mark.parametrize(("steps", "first"), [(1, 1), (2, 2), (5, 3), (9, 5), (10, 6), (11, 6)])
def test_a_short_run_leaves_out_at_most_half(steps, first):
    assert steady_rates([step(i) for i in range(1, steps + 1)]).first == first


def test_mean_loss():
    assert mean_loss([step(1, loss=1.0), step(2, loss=4.0)]) == 2.5


def test_moving_mean_uses_what_neighbours_there_are():
    assert moving_mean([0.0, 3.0, 6.0, 3.0, 0.0], 1) == [1.5, 3.0, 4.0, 3.0, 1.5]


@pytest.mark.parametrize("steps", [1, 5, 60])
def test_the_plot_shows_the_loss(tmp_path, steps):
    from matplotlib import image

    path = tmp_path / "run" / "loss.png"
    plot_loss([step(i, loss=2.0) for i in range(1, steps + 1)], path)
    flat = image.imread(path)
    assert flat.shape[:2] == (675, 1200)
    assert flat[..., 0].min() < 0.3  # a dark red channel: the blue line and the black text
    plot_loss([step(i, loss=9.0 / i) for i in range(1, steps + 1)], path)
    assert (image.imread(path) != flat).any()
    assert [entry.name for entry in path.parent.iterdir()] == ["loss.png"]
