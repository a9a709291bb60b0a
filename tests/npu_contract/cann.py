"""Builds stand-ins for CANN's libraries, so that the real torch_npu loads where CANN is not.

    python tests/npu_contract/cann.py FOLDER

With FOLDER in LD_LIBRARY_PATH torch_npu sees one device. Its memory is the host's (runtime.c);
every other function that torch_npu asks CANN for answers with an error, and the operators of
libopapi do nothing. Needs a C compiler, nm and readelf; torch is not imported.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_RUNTIME = "libascendcl.so"
_OPERATORS = "libopapi.so"
_CANN_LIBRARY = re.compile(r"lib(ascendcl|hccl|acl_\w+|ge_runner|graph)\.so")
_CANN_FUNCTION = re.compile(r"(acl(rt|mdl|op|[A-Z])|Hccl[A-Z]|Msprof[A-Z]|rt[A-Z])\w*")
_NOT_THERE = 107000  # ACL_ERROR_RT_PARAM_INVALID


def missing_tool() -> str | None:
    """Returns a tool that is needed and not installed."""
    return next((tool for tool in ("cc", "nm", "readelf") if shutil.which(tool) is None), None)


def build(folder: Path) -> None:
    """Builds the libraries into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = _wheel()
    runtime = Path(__file__).with_name("runtime.c").read_text(encoding="ascii")
    binaries = [wheel / "lib" / f"lib{name}.so" for name in ("torch_npu", "tensorpipe")]
    binaries += [wheel / "lib" / "libnpu_profiler.so", *wheel.glob("_C.*.so")]
    there = set(re.findall(r"\b(?:acl\w+)(?=[(,)])", runtime))
    absent = sorted(_functions(binaries) - there)
    _compile(folder, _RUNTIME, runtime + _stubs(absent, _NOT_THERE))
    operators = _operators(wheel / "lib" / "libtorch_npu.so")
    _compile(folder, _OPERATORS, _HANDLES + _stubs(operators, 0))
    for name in sorted(_libraries(binaries) - {_RUNTIME}):
        # torch_npu looks a function up in the library that has it in CANN: all find the runtime's.
        _compile(folder, name, "", "-Wl,--no-as-needed", f"-L{folder}", "-lascendcl")


# Tensors and lists that operators take: something that is not null.
_HANDLES = """
#define CREATES(kind) void *aclCreate##kind(void) { return (void *)0x10; } \\
                      int aclDestroy##kind(void) { return 0; }
CREATES(Tensor) CREATES(Scalar) CREATES(IntArray) CREATES(FloatArray) CREATES(BoolArray)
CREATES(TensorList) CREATES(ScalarList)
int aclDestroyAclOpExecutor(void) { return 0; }
"""


def _wheel() -> Path:
    spec = importlib.util.find_spec("torch_npu")
    if spec is None or spec.origin is None:
        sys.exit("torch_npu is not installed")
    return Path(spec.origin).parent


def _functions(binaries: Iterable[Path]) -> set[str]:
    """Returns the functions of CANN that the wheel links against."""
    names = set()
    for path in binaries:
        listing = _output("nm", "-D", "--undefined-only", str(path))
        names |= {line.split()[-1].partition("@")[0] for line in listing.splitlines()}
    return {name for name in names if _CANN_FUNCTION.fullmatch(name)}


def _libraries(binaries: Iterable[Path]) -> set[str]:
    """Returns the libraries of CANN that the wheel links against."""
    needed = set()
    for path in binaries:
        needed |= set(re.findall(r"NEEDED.*\[(.*)\]", _output("readelf", "-d", str(path))))
    return {name for name in needed if _CANN_LIBRARY.fullmatch(name)}


def _operators(library: Path) -> list[str]:
    """Returns the functions of libopapi: for each operator one that plans and one that runs."""
    found = set(re.findall(rb"\baclnn[A-Z]\w+", library.read_bytes()))
    names = {name.decode("ascii").removesuffix("GetWorkspaceSize") for name in found}
    return sorted(names | {f"{name}GetWorkspaceSize" for name in names})


def _stubs(names: Iterable[str], status: int) -> str:
    return "\n".join(f"int {name}(void) {{ return {status}; }}" for name in names)


def _compile(folder: Path, name: str, source: str, *options: str) -> None:
    path = folder / f"{name}.c"
    path.write_text(source, encoding="ascii")
    library = str(folder / name)
    command = ("cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", library, str(path))
    subprocess.run([*command, *options], check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    if (tool := missing_tool()) is not None:
        sys.exit(f"{tool} is not installed")
    build(Path(sys.argv[1]).resolve())
