"""What `bc2-train doctor` says of machines and runs that are not as they should be."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bc2_data.indexed import IndexedWriter, bin_path, idx_path
from bc2_train.cli import main
from bc2_train.config import load
from bc2_train.doctor import ascend, ports, run_directory, versions
from bc2_train.doctor.subprocesses import attempt

ROOT = Path(__file__).parents[3]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    path = tmp_path / "text_document"
    with IndexedWriter(bin_path(path), idx_path(path)) as writer:
        writer.add([np.arange(10, 210, dtype=np.int32)] * 40)
    return path


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, Any]]]:
    status = main(["doctor", "--json", *options])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def of(findings: list[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    return [finding for finding in findings if finding["group"] == group]


def recipe(prefix: Path, tmp_path: Path, **settings: object) -> list[str]:
    values = {"data.prefix": prefix, "run.dir": tmp_path / "run", "device": "cpu", **settings}
    pairs = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    return ["--recipe", "tiny-7b", *pairs]


def test_a_run_that_would_work(
    prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, findings = doctor(capsys, *recipe(prefix, tmp_path))
    problems = [finding for finding in findings if finding["level"] == "problem"]
    assert (status, problems) == (0, [])
    assert any("gloo starts" in f["what"] for f in of(findings, "communication"))
    assert any("in float32 on cpu: cpu" in f["what"] for f in of(findings, "kernels"))
    assert any("40 sequences, 8,000 tokens" in f["what"] for f in of(findings, "inputs"))
    assert not (tmp_path / "run").exists()  # it only looks


def test_every_problem_comes_with_a_remedy(
    prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, findings = doctor(
            capsys,
            *recipe(prefix, tmp_path, **{"parallel.tensor": 3, "data.seq_length": 4096}),
            *("--master-port", str(port)),
        )
    assert status == 1
    bad = [finding for finding in findings if finding["level"] == "problem"]
    assert all(finding["remedy"] for finding in bad)
    said = " ".join(finding["what"] for finding in bad)
    assert f"{port}, cannot be used" in said
    assert "parallel.tensor = 3 does not divide" in said
    assert "8,000 tokens, fewer than the 32,768 of one step" in said


def test_data_and_checkpoints_that_are_not_there(
    prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = recipe(tmp_path / "nothing", tmp_path)
    assert doctor(capsys, *missing)[0] == 1
    status, findings = doctor(
        capsys, *recipe(prefix, tmp_path, **{"model.init": tmp_path / "gone"})
    )
    assert status == 1
    assert any("gone" in f["what"] and f["level"] == "problem" for f in findings)


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert {name: pinned[name] for name in versions.TESTED} == versions.TESTED


@pytest.mark.parametrize(
    ("version", "level"), [("2.13.0", "ok"), ("2.13.0+cpu", "ok"), ("2.12.0", "warning")]
)
def test_versions(version: str, level: str) -> None:
    assert versions.compare("torch", version, "2.13.0").level == level
    missing = versions.compare("torch", None, "2.13.0")
    assert (missing.level, missing.remedy) == ("problem", "python3 -m pip install 'torch==2.13.0'")


def test_torch_npu_must_pair_with_torch_and_cann() -> None:
    assert ascend.torch_pairing("2.13.0+cpu", "2.13.0").level == "ok"
    assert ascend.torch_pairing("2.7.1", "2.7.1.post8").level == "ok"
    wrong = ascend.torch_pairing("2.13.0+cpu", "2.7.1.post8")
    assert (wrong.level, "torch==2.7.1" in wrong.remedy) == ("problem", True)
    assert ascend.cann_pairing("8.5.0", "2.9.0", "/c").level == "ok"
    assert ascend.cann_pairing("9.0.0", "2.9.0", "/c").level == "problem"
    assert ascend.cann_pairing("9.0.0", "9.9.9", "/c").level == "warning"


def test_the_pairs_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs" / "install-ascend.md").read_text()
    rows = re.findall(r"^\| ([\d.RC]+) \| [\d.]+ \| ([\w.]+) \|", text, re.M)
    assert {torch_npu: cann for cann, torch_npu in rows} == ascend.CANN_OF_TORCH_NPU


@pytest.mark.parametrize(
    ("complaint", "what", "remedy"),
    [
        (
            "ImportError: libascend_hal.so: cannot open shared object file: No such file",
            "part of the NPU's driver",
            "/usr/local/Ascend/driver",
        ),
        (
            "ImportError: libhccl.so: cannot open shared object file: No such file or directory",
            "libhccl.so, which is part of CANN",
            "set_env.sh",
        ),
        (
            "ImportError: libtorch_npu.so: undefined symbol: aclrtFoo",
            "another CANN, or another torch",
            "install-ascend.md",
        ),
        ("ModuleNotFoundError: No module named 'yaml'", "'yaml'", "pip"),
    ],
)
def test_the_broken_imports_of_torch_npu_are_explained(
    complaint: str, what: str, remedy: str
) -> None:
    found = ascend.explain(f"Traceback (most recent call last):\n{complaint}\n")
    assert found.level == "problem"
    assert what in found.what
    assert remedy in found.remedy


def test_a_torch_npu_without_cann_is_explained_and_does_not_break_the_doctor(
    tmp_path: Path,
) -> None:
    """As it really is: torch loads torch_npu by itself, and cannot be imported."""
    package = tmp_path / "torch_npu"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise ImportError('libascend_hal.so: cannot open shared object file: No such file')\n"
    )
    info = tmp_path / "torch_npu-2.13.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.13.0\n")
    (info / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "TORCH_DEVICE_BACKEND_AUTOLOAD"):
        environment.pop(name, None)
    broken = subprocess.run(
        [sys.executable, "-c", "import torch"], env=environment, capture_output=True, check=False
    )
    assert broken.returncode != 0  # else this would show nothing
    result = subprocess.run(
        [sys.executable, "-c", "from bc2_train.cli import main; print(main(['doctor']))"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "problem  CANN's environment is not set in this shell" in result.stdout
    assert "libascend_hal.so, which is part of the NPU's driver, is not found" in result.stdout
    assert "gloo starts and reduces on cpu" in result.stdout
    assert "2 problems" in result.stdout
    assert result.stdout.endswith("\n1\n")


def test_a_trial_that_crashes_or_fails_is_told() -> None:
    assert attempt("print('fine')").output == "fine"
    failed = attempt("raise ValueError('no good')")
    assert (failed.worked, failed.output) == (False, "ValueError: no good")
    crashed = attempt("import os; os.abort()")
    assert (crashed.worked, crashed.output) == (False, "ended with status -6")


def test_checkpoints_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [f"run.dir={tmp_path / 'run'}", "data.prefix=x", "checkpoint.keep=2"]
    config = load("tiny-7b", [*settings, "checkpoint.interval=10"])
    assert run_directory.kept_checkpoints(config) == 3  # the one that is being written is one
    one = run_directory.checkpoint_bytes(config)

    def levels(free: int) -> list[str]:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
        return [finding.level for finding in run_directory.check(config)]

    assert levels(3 * one) == ["ok", "ok"]
    assert levels(3 * one - 1) == ["ok", "warning"]
    assert levels(one - 1) == ["ok", "problem"]
    assert list(tmp_path.iterdir()) == []


def test_a_free_port_is_free() -> None:
    assert [finding.level for finding in ports.check(None, 0)][-1] == "ok"
