"""On what a run ran: written down at each of its starts, for whoever reads its results later."""

from __future__ import annotations

import datetime
import json
import os
import platform
import socket
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bc2_train.config import RunConfig
from bc2_train.ranks import Ranks

FILE = "environments.jsonl"
"""In the run directory: one line for each start."""

PACKAGES = (
    "bc2-train",
    "torch",
    "torch-npu",
    "megatron-core",
    "deepspeed",
    "transformers",
    "numpy",
    "flash-attn",
    "triton",
)
"""Those of which a run writes down the version."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One line of `FILE`.

    Attributes:
        started: Date and time in UTC, ISO 8601.
        iteration: Completed iterations at this start: 0, or where a checkpoint was taken up.
        hosts: The hosts, in the order of their first ranks.
        devices: The device of every rank, such as ``NVIDIA H100 80GB HBM3``.
        python: Its version.
        system: The operating system of the first host.
        cann: Version of Ascend's CANN on the first host, "" without.
        versions: Of the packages that are installed, by name.
    """

    started: str
    iteration: int
    hosts: list[str]
    devices: list[str]
    python: str
    system: str
    cann: str
    versions: dict[str, str]


def record_environment(config: RunConfig, ranks: Ranks, device: Any, iteration: int) -> None:
    """Adds a line to `FILE`; every rank calls it, the first one writes.

    Args:
        config: The run.
        ranks: Its processes.
        device: The torch.device of this one.
        iteration: Completed iterations.
    """
    places = ranks.gather((socket.gethostname(), device_name(device)))
    if ranks.rank != 0:
        return
    environment = Environment(
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        iteration=iteration,
        hosts=list(dict.fromkeys(host for host, _ in places)),
        devices=[name for _, name in places],
        python=platform.python_version(),
        system=platform.platform(),
        cann=cann_version(),
        versions=installed_versions(),
    )
    with open(config.run_dir / FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(environment)) + "\n")


def device_name(device: Any) -> str:
    """Returns the name of a torch.device, as its driver, or for a CPU the system, has it."""
    if device.type == "cpu":
        return f"CPU ({_cpu_model()})"
    import torch

    return str(getattr(torch, device.type).get_device_name(device))


def installed_versions() -> dict[str, str]:
    """Returns the versions of those `PACKAGES` that are installed, without importing them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cann_version() -> str:
    """Returns the version of the CANN toolkit whose set_env.sh was sourced, or ""."""
    home = os.environ.get("ASCEND_TOOLKIT_HOME") or os.environ.get("ASCEND_HOME_PATH")
    if not home:
        return ""
    folder = Path(home)
    # Beside the libraries of each processor architecture, in a folder of its name.
    for path in (*folder.glob("ascend_*install.info"), *folder.glob("*/ascend_*install.info")):
        for line in path.read_text("utf-8", errors="replace").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "version":
                return value.strip()
    return ""


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.machine()
