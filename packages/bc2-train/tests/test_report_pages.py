"""Reports of runs in every state, as Markdown and as a page that a real browser shows."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bc2_train.cli import main
from bc2_train.metrics import RankTimes, StepMetrics
from bc2_train.report.document import Document, Listing, Paragraph, Section, Table
from bc2_train.report.markdown import render
from bc2_train.report.run import load_runs
from bc2_train.report.slow_ranks import slow_ranks
from bc2_train.throughput import ascendspeed_flops, exact_flops, tflops_per_device

HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"

CONFIG = """\
model: {config: baichuan2-7b}
data: {kind: pretrain, prefix: "<b>data</b>", seq_length: 4096}
batch: {micro: 4, global: 128}
optimizer: {lr: 1.0e-6}
train: {iterations: 40}
run: {dir: run}
"""


def step(iteration: int, **changes: Any) -> dict[str, Any]:
    """A step of the 7B run of AscendSpeed's README: 128 samples of 4096 tokens on 8 devices."""
    from bc2_ckpt.config import PRESETS

    seconds = changes.get("step_time", 24.97)
    flops = ascendspeed_flops(
        PRESETS["baichuan2-7b"], batch_size=128, seq_length=4096, padded_vocab_size=125_952
    )
    values = StepMetrics(
        iteration=iteration,
        loss=10 / (iteration + 3),
        grad_norm=1.0,
        lr=1e-6,
        step_time=seconds,
        samples_per_second=128 / seconds,
        tokens_per_second_per_device=128 * 4096 / seconds / 8,
        tflops_per_device=tflops_per_device(flops, step_time=seconds, devices=8),
        consumed_samples=128 * iteration,
        consumed_tokens=128 * 4096 * iteration,
        skipped=0,
        memory=1 << 30,
        data_time=0.5,
        forward_backward_time=20.0,
        optimizer_time=4.0,
    )
    return {**asdict(values), **changes}


def make_run(folder: Path, steps: int = 40, device: str = "NVIDIA A100-SXM4-80GB") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "log.txt").write_text(f"a line\n{HOSTILE}\n")
    write(folder / "metrics.jsonl", [step(i) for i in range(1, steps + 1)])
    environment = {
        "started": "2026-01-02T03:04:05+00:00",
        "iteration": 0,
        "hosts": ["node<1>"],
        "devices": [device] * 8,
        "python": "3.11.7",
        "system": "Linux",
        "cann": "",
        "versions": {"torch": "2.13.0"},
    }
    write(folder / "environments.jsonl", [environment])
    return folder


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


class Page(HTMLParser):
    """A page's tags, whether they are closed in order, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_readmes_row_comes_out_with_both_counts_and_the_utilisation(tmp_path: Path) -> None:
    from bc2_ckpt.config import PRESETS

    run = make_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    text = (run / "report" / "report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| run | 8 x NVIDIA A100"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    exact = tflops_per_device(
        exact_flops(PRESETS["baichuan2-7b"], batch_size=128, seq_length=4096),
        step_time=24.97,
        devices=8,
    )
    assert cells[2:] == [
        "baichuan2-7b",
        "40",
        "5.1262",
        "2624.6",
        "24.97",
        "124.45",
        f"{exact:.5g}",
        f"{exact / 312:.1%}",
    ]
    # How it is computed, with the README's own runs as the proof.
    assert re.search(r"baichuan2-7b \| 128 \| 4096 \| 24.97 \| 8 \| 124.45\d", text)
    assert "| baichuan2-13b | 256 | 4096 | 49.716 | 16 | 116.608 |" in text


def test_an_unknown_device_has_no_utilisation_and_old_runs_still_have_a_report(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run", device="abacus")
    main(["report", str(run)])
    text = (run / "report" / "report.md").read_text()
    assert re.search(r"\| 8 x abacus .*\| - \|\n", text)
    old = make_run(tmp_path / "old")
    late = ("data_time", "forward_backward_time", "optimizer_time", "loss_scale")
    write(
        old / "metrics.jsonl",
        [{k: v for k, v in step(i).items() if k not in late} for i in range(1, 8)],
    )
    for name in ("environments.jsonl", "config.yaml", "log.txt"):
        (old / name).unlink()
    assert main(["report", str(old)]) == 0
    text = (old / "report" / "report.md").read_text()
    assert "| old | 8 x device | unknown | 7 | 5.1262 |" in text  # 8 follows from the rates
    assert "has not reached its end" in text


def test_mean_median_and_spread_are_of_one_window(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    slow = [step(i, step_time=300.0) for i in range(1, 6)]  # left out
    steady = [step(i, step_time=seconds) for i, seconds in enumerate((10, 10, 10, 10, 40), 6)]
    write(run / "metrics.jsonl", slow + steady)
    main(["report", str(run)])
    text = (run / "report" / "report.md").read_text()
    assert "iterations 6 to 10, 5 steps" in text
    assert "| s/step | 16 | 10 | 12 | 10 | 40 |" in text
    # A rate's mean is work over time: 640 samples in 80 seconds.
    assert "| samples/s | 8 | 12.8 | 3.84 | 3.2 | 12.8 |" in text


def test_a_killed_run_with_steps_that_are_no_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    steps = [step(i) for i in range(1, 31)]
    steps[11].update(loss=None, grad_norm=None)
    write(run / "metrics.jsonl", steps)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 31, "lo')
    reference = make_run(tmp_path / "reference")
    arguments = ["report", str(run), "--reference", str(reference)]
    assert main(arguments) == 1  # NaN follows nothing
    text = (run / "report" / "report.md").read_text()
    assert "30 of 40 iterations, has not reached its end" in text
    assert "not finite in 1 steps (12)" in text
    assert "run: ABOVE the limit of 0.02." in text


def test_the_verdict_against_a_log_of_another_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    log = tmp_path / "ascendspeed.log"
    lines = [
        f" iteration {i:8d}/      40 | lm loss: {10 / (i + 3) * 1.015:.6E} | loss scale: 1.0 |"
        for i in range(1, 41)
    ]
    log.write_text("\n".join(lines))
    output = tmp_path / "out"
    asked = ["report", str(run), "--reference", str(log), "--output", str(output)]
    assert main(asked) == 0
    assert "**run: within the limit of 0.02.**" in (output / "report.md").read_text()
    assert {path.name for path in output.iterdir()} == {
        "report.html",
        "report.md",
        "loss.png",
        "learning-rate.png",
        "grad-norm.png",
        "throughput.png",
        "reference-1.png",
    }
    assert main([*asked, "--max-relative-error", "0.01"]) == 1  # and replaces the earlier report
    assert "off by more than 0.01" in capsys.readouterr().err


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    name = "$\\oops$"  # no formula, though matplotlib would take it for one
    first, second = make_run(tmp_path / "a" / name), make_run(tmp_path / "b" / name, steps=9)
    (second / "config.yaml").write_text(CONFIG.replace("1.0e-6", "2.0e-6"))
    assert [run.name for run in load_runs([first, second])] == [f"a/{name}", f"b/{name}"]
    output = tmp_path / "out"
    assert main(["report", str(first), str(second), "--output", str(output)]) == 0
    text = (output / "report.md").read_text()
    assert "| optimizer.lr | 1e-06 | 2e-06 |" in text
    assert "| data.seq\\_length |" not in text


def test_what_is_not_a_report_is_not_overwritten(tmp_path: Path) -> None:
    run, output = make_run(tmp_path / "run"), tmp_path / "out"
    output.mkdir()
    (output / "report.md").write_text("mine")
    assert main(["report", str(run), "--output", str(output)]) == 2
    assert (output / "report.md").read_text() == "mine"


def test_markdown_takes_nothing_for_markup() -> None:
    section = Section("*s*", [Table(("a|b",), [["<b>"]]), Listing("l", "```\nx"), Paragraph("[x]")])
    text = render(Document("T", "S", [section]))
    assert "a\\|b" in text
    assert "&lt;b>" in text
    assert "````text\n```\nx\n````" in text
    assert "\\[x\\]" in text


def times(probe: list[float], data: float = 0.0, local: float = 1.0) -> RankTimes:
    return RankTimes(iteration=10, data=[0.0, data], local=[1.0, local], probe=probe)


def test_slow_ranks_are_named() -> None:
    steady = [times([1.0, 1.1])] * 4
    assert slow_ranks(steady, step_time=2.0) == []
    (slow,) = slow_ranks([times([1.0, 2.0])] * 4, step_time=2.0)
    assert (slow.rank, slow.seconds, slow.usual) == (1, 2.0, 1.0)
    (slow,) = slow_ranks([times([1.0, 1.0], data=0.5)] * 4, step_time=2.0)
    assert (slow.rank, slow.over) == (1, "reading data")
    (slow,) = slow_ranks([times([1.0, 1.0], local=1.5)] * 4, step_time=2.0)
    assert slow.over.startswith("computing")
    # Where ranks wait for each other within the passes, what they wait over is left out.
    (slow,) = slow_ranks([times([1.0, 1.0], data=0.5, local=math.nan)] * 4, step_time=2.0)
    assert (slow.rank, slow.over) == (1, "reading data")
    # Reading that costs nothing is not slow, nor is a rank that was disturbed once.
    assert slow_ranks([times([1.0, 1.0], data=0.001)] * 4, step_time=2.0) == []
    assert slow_ranks([*steady, times([1.0, 9.0])], step_time=2.0) == []


def test_the_page_names_a_slow_rank(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write(run / "ranks.jsonl", [asdict(times([1.0, 3.0]))] * 4)
    main(["report", str(run)])
    text = (run / "report" / "report.html").read_text()
    assert "rank 1 is slow: a small computation of its own takes it 3 s, 3.0 times" in text


def test_the_page_is_well_formed_and_refers_to_nothing_outside(tmp_path: Path) -> None:
    run = make_run(tmp_path / HOSTILE.replace("/", ""))
    main(["report", str(run)])
    text = (run / "report" / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert (
        'content="default-src &#x27;none&#x27;; img-src data:; style-src &#x27;unsafe-inline&#x27;"'
        in text
    )
    assert "&lt;script&gt;document.title" in text
    assert "node&lt;1&gt;" in text


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

# What the page looks like from inside; put into a copy of it, without its policy.
LOOK = """<script>addEventListener("load", () => {
  const images = [...document.images].map(image => [image.naturalWidth, image.clientWidth]);
  const tables = [...document.querySelectorAll("table")].map(table => table.clientHeight);
  const seen = {images, tables, title: document.title, page: document.body.scrollWidth,
    window: innerWidth, ground: getComputedStyle(document.body).backgroundColor};
  document.body.textContent = JSON.stringify(seen);
});</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of these browsers is installed: {', '.join(BROWSERS)}")
    return found


def look(browser: str, page: Path, width: int, *options: str) -> dict[str, Any]:
    """Opens a page in a browser that reaches no network; returns what `LOOK` finds."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    copy = page.with_name("look.html")
    copy.write_text(text.replace("</body>", f"{LOOK}</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},900", *options]
    result = subprocess.run(
        [*command, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    match = re.search(r"<body>(\{.*\})</body>", result.stdout)
    assert match, result.stdout[-2000:]
    seen: dict[str, Any] = json.loads(match[1])
    return seen


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_plots_and_tables_and_runs_nothing(
    tmp_path: Path, browser: str, width: int
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["report", str(run), "--reference", str(run)]) == 0
    page = run / "report" / "report.html"
    seen = look(browser, page, width)
    assert len(seen["images"]) == 5
    assert all(natural == 1200 and shown > 300 for natural, shown in seen["images"])
    assert len(seen["tables"]) >= 6
    assert min(seen["tables"]) > 40
    assert seen["page"] <= seen["window"], "the page, not a table in it, scrolls sideways"
    assert seen["title"] == "Training report: run"  # what the log says was not carried out
    assert seen["ground"] == "rgb(255, 255, 255)"
    dark = look(browser, page, width, "--blink-settings=preferredColorScheme=0")
    assert dark["ground"] == "rgb(20, 23, 26)"
