"""Do driver, CANN, torch_npu and torch fit together?

torch_npu is imported in a process of its own: where its libraries are missing, the import fails in
ways that tell little, and may take the interpreter with it.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from bc2_train.doctor.finding import Finding, ok, problem, warning
from bc2_train.doctor.subprocesses import attempt
from bc2_train.doctor.versions import installed
from bc2_train.environment import cann_version

_DEVICES = "/dev/davinci[0-9]*"
_SET_ENV = (
    "/usr/local/Ascend/cann/set_env.sh",
    "/usr/local/Ascend/ascend-toolkit/set_env.sh",
    "~/Ascend/cann/set_env.sh",
    "~/Ascend/ascend-toolkit/set_env.sh",
)
"""Where CANN installs it, from 8.5 on and before, by root and by a user."""

CANN_OF_TORCH_NPU = {
    "2.12.0": "9.1.0",
    "2.11.0": "9.1.0",
    "2.10.0.post4": "9.1.0",
    "2.9.0.post6": "9.1.0",
    "2.7.1.post8": "9.1.0",
    "2.9.0.post2": "9.0.0",
    "2.8.0.post4": "9.0.0",
    "2.7.1.post4": "9.0.0",
    "2.9.0": "8.5.0",
    "2.8.0.post2": "8.5.0",
    "2.7.1.post2": "8.5.0",
    "2.6.0.post5": "8.5.0",
    "2.8.0": "8.3.RC1",
    "2.7.1": "8.3.RC1",
    "2.6.0.post3": "8.3.RC1",
    "2.6.0": "8.2.RC1",
}
"""Source: COMPATIBILITY.en.md of torch_npu's repository, as docs/install-ascend.md has it."""

_DRIVER_LIBRARIES = ("libascend_hal", "libdrvdsmi")
_MISSING_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
# torch loads its backends at import unless it is told not to; the failure would be torch's then.
_NO_AUTOLOAD = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
_IMPORT = "import torch, torch_npu; print(torch.npu.device_count())"


def check() -> Iterator[Finding]:
    """Yields one finding where nothing of Ascend is here, else one for each of its layers."""
    version, devices = installed("torch-npu"), glob.glob(_DEVICES)
    if version is None:
        if devices:
            yield problem(
                f"there are NPUs ({', '.join(sorted(devices))}), but torch_npu is not installed",
                f"python3 -m pip install 'torch-npu=={_base(installed('torch') or '2.13.0')}'",
            )
        else:
            yield ok("no NPU and no torch_npu")
        return
    yield torch_pairing(installed("torch"), version)
    yield _cann(version)
    trial = attempt(_IMPORT, _NO_AUTOLOAD)
    if not trial.worked:
        yield explain(trial.complaint or trial.output)
        return
    count = int(trial.output.split()[-1])
    yield (
        ok(f"torch_npu {version} can be imported")
        if count
        else problem(
            "torch_npu can be imported, but sees no NPU",
            "npu-smi info lists what the driver sees; ASCEND_RT_VISIBLE_DEVICES may hide some",
        )
    )


def torch_pairing(torch: str | None, torch_npu: str) -> Finding:
    """Returns whether torch_npu was built for this torch: its version begins with torch's."""
    base, npu = _base(torch or ""), _base(torch_npu)
    if base == npu:
        return ok(f"torch_npu {torch_npu} belongs to torch {torch}")
    return problem(
        f"torch_npu {torch_npu} is built for torch {npu}, and torch is {torch}",
        f"python3 -m pip install 'torch=={npu}', or the torch_npu of torch {base}",
    )


def explain(complaint: str) -> Finding:
    """Returns why an import of torch_npu failed, and what to do about it.

    Args:
        complaint: What Python wrote on stderr.
    """
    last = complaint.strip().splitlines()[-1] if complaint.strip() else "no reason given"
    library = _MISSING_LIBRARY.search(complaint)
    if library is not None:
        name = library[1]
        if name.startswith(_DRIVER_LIBRARIES):
            return problem(
                f"torch_npu cannot be imported: {name}, which is part of the NPU's driver, is not "
                "found",
                "install the driver, or where npu-smi info works, source CANN's set_env.sh or add "
                "/usr/local/Ascend/driver/lib64/driver to LD_LIBRARY_PATH; in a container, mount "
                "/usr/local/Ascend/driver",
            )
        return problem(
            f"torch_npu cannot be imported: {name}, which is part of CANN, is not found",
            _source_set_env(),
        )
    if "undefined symbol" in complaint:
        return problem(
            f"torch_npu cannot be imported: {last}: it was built for another CANN, or another "
            "torch, than is here",
            "docs/install-ascend.md lists which versions belong together",
        )
    if "No module named" in complaint:
        return problem(
            f"torch_npu cannot be imported: {last}",
            "install the named module with pip: torch_npu and CANN's Python parts need it",
        )
    return problem(f"torch_npu cannot be imported: {last}", "docs/install-ascend.md, step by step")


def _cann(torch_npu: str) -> Finding:
    home = os.environ.get("ASCEND_HOME_PATH") or os.environ.get("ASCEND_TOOLKIT_HOME")
    if not home:
        return problem("CANN's environment is not set in this shell", _source_set_env())
    if not Path(home).is_dir():
        return problem(f"CANN's environment names {home}, which does not exist", _source_set_env())
    version = cann_version()
    if not version:
        return warning(
            f"CANN is at {home}, but its version is not known",
            "compare it by hand with the table of docs/install-ascend.md",
        )
    return cann_pairing(version, torch_npu, home)


def cann_pairing(cann: str, torch_npu: str, home: str) -> Finding:
    """Returns whether torch_npu was built for this CANN, as far as its compatibility table says."""
    built_for = CANN_OF_TORCH_NPU.get(torch_npu)
    if built_for is None:
        return warning(
            f"CANN {cann} at {home}; which one torch_npu {torch_npu} was built for is not known",
            "compare it with the release notes of torch_npu",
        )
    if cann != built_for:
        return problem(
            f"torch_npu {torch_npu} was built for CANN {built_for}, and {home} is CANN {cann}",
            f"install CANN {built_for}, or the torch_npu of CANN {cann}: docs/install-ascend.md",
        )
    return ok(f"CANN {cann} at {home} belongs to torch_npu {torch_npu}")


def _source_set_env() -> str:
    for place in _SET_ENV:
        path = Path(place).expanduser()
        if path.is_file():
            return f"source {path}, in every shell and batch script that trains"
    return "install CANN, then source its set_env.sh: docs/install-ascend.md"


def _base(version: str) -> str:
    """Returns ``2.7.1`` of ``2.7.1.post8`` and of ``2.7.1+cpu``."""
    return ".".join(version.partition("+")[0].split(".")[:3])
