"""The project's commands: ``python3 -m pip install nox``, then ``python3 -m nox -s SESSION``.

Every environment is a plain virtual environment that pip fills under constraints.txt.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
PACKAGES = ("bc2-data", "bc2-ckpt", "bc2-model", "bc2-train")
# fsspec and aiohttp let the tests of remote inputs run; fastokens those of the fast engine; gguf
# those of the format of that name.
TEST_TOOLS = (
    *("pytest", "pytest-cov", "hypothesis", "coverage"),
    *("fsspec", "aiohttp", "fastokens", "gguf"),
)
# Lets the tests of our Triton kernels run, interpreted and compiled, without a GPU.
TRITON = "triton; sys_platform == 'linux'"

# Programs that load what bc2 writes, besides those that bc2-train is built on.
CLIENTS = {"xllamacpp": "llama.cpp", "lm_eval[hf]": "lm-evaluation-harness"}

# A package alone may import none of these; the keys are what `isolated` installs.
ABSENT = {
    "bc2-data": ("torch", "transformers", "megatron", "deepspeed"),
    "bc2-ckpt": ("transformers", "megatron", "deepspeed"),
    "bc2-model": ("transformers", "megatron", "deepspeed"),
    "bc2-train": (),
}

# What each package is for, from its wheel and those above it alone: an example that must run.
USES = {
    "bc2-data": "tokenise.py",
    "bc2-ckpt": "convert_checkpoint.py",
    "bc2-model": "attention_in_your_model.py",
    "bc2-train": "train.py",
}


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on real text, from parquet to a trained model; leaves demo-run/."""
    install(session, *PACKAGES)
    session.run("bc2-train", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, then bc2-data and the kernels each in an environment of their own."""
    extras = ("peft", "prometheus-client", "wandb", TRITON)
    install(session, *PACKAGES, tools=(*TEST_TOOLS, *extras), editable=True)
    session.run("pytest", *session.posargs)
    if not session.posargs:
        session.notify("isolated", ["bc2-data", "bc2-model"])


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Kills runs in every layout again and again, then one for an hour; -- --soak-minutes 5."""
    install(session, *PACKAGES, tools=TEST_TOOLS, editable=True)
    tests = ("tests/faults/test_kills.py", "tests/faults/test_soak.py")
    options = ("--kills", "10", "--soak-minutes", "60")
    session.run("pytest", *tests, *options, "-rP", *session.posargs)


@nox.session(default=False)
def ray(session: nox.Session) -> None:
    """Tokenises on a real Ray of this machine; Ray is too large for the environment of `tests`."""
    install(session, "bc2-data[ray]", tools=TEST_TOOLS)
    session.run("pytest", "packages/bc2-data/tests/test_launchers_ray.py", *session.posargs)


@nox.session(default=False)
def slurm(session: nox.Session) -> None:
    """Jobs of a real Slurm of one node, which the tests start; it takes root."""
    missing = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name) is None]
    if missing:
        session.skip(f"not installed: {', '.join(missing)}; on Debian: slurm-wlm")
    install(session, *PACKAGES, tools=TEST_TOOLS, editable=True)
    session.run("pytest", "tests/slurm", *session.posargs, env={"BC2_SLURM": "1"})


@nox.session(default=False)
def clients(session: nox.Session) -> None:
    """Programs that others wrote load what bc2 writes; ends with those that could not be had."""
    install(session, *PACKAGES, tools=("pytest", "gguf"), editable=True)
    why = {name: _why_not_installed(session, name) for name in CLIENTS}
    try:
        session.run("pytest", "tests/clients", "-rs", *session.posargs)
    finally:
        missing = {CLIENTS[name]: reason for name, reason in why.items() if reason}
        for client, reason in missing.items():
            session.warn(f"not tested: {client}, whose package could not be installed: {reason}")
        session.log(f"could not be installed: {', '.join(missing) or 'nothing'}")


def _why_not_installed(session: nox.Session, package: str) -> str:
    """Installs a package from its wheels; returns "" or why that did not work."""
    command = ("python", "-m", "pip", "install", "--only-binary", package.partition("[")[0])
    anything = range(256)
    output = session.run(
        *command, "-c", "constraints.txt", package, silent=True, success_codes=anything
    )
    errors = [line for line in str(output).splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR: ") if errors else ""


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint, types and import rules."""
    install(
        session,
        *PACKAGES,
        tools=("ruff", "mypy", "import-linter", "types-PyYAML", "nox"),
        editable=True,
    )
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(venv_backend="none")
def isolated(session: nox.Session) -> None:
    """Each package alone with what it depends on: nothing heavier comes along, its tests pass."""
    for package in session.posargs or PACKAGES:
        session.notify(f"isolated_{package[4:]}")


def _isolated(session: nox.Session, package: str) -> None:
    below = PACKAGES[: PACKAGES.index(package) + 1]
    install(session, *below, tools=TEST_TOOLS)
    for module in ABSENT[package]:
        check = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is not None)"
        session.run("python", "-c", check)
    session.run("pytest", f"packages/{package}/tests")


for _package in PACKAGES:

    def _session(session: nox.Session, package: str = _package) -> None:
        _isolated(session, package)

    _session.__doc__ = f"{_package} alone; part of `isolated`."
    nox.session(_session, name=f"isolated_{_package[4:]}", default=False)


@nox.session(default=False)
def npu_contract(session: nox.Session) -> None:
    """The NPU code against the real torch_npu wheel, without a device; see docs/npu-contract.md."""
    missing = [tool for tool in ("cc", "nm", "readelf") if shutil.which(tool) is None]
    if missing:
        session.skip(f"not installed: {', '.join(missing)}")
    try:
        session.install("-c", "constraints.txt", "torch-npu")
    except CommandFailed:
        session.skip("there is no torch-npu for this platform and Python, see above")
    install(session, "bc2-data", "bc2-ckpt", "bc2-model[hf]", tools=("pytest",))
    cann = Path(session.create_tmp()) / "cann"
    session.run("python", "tests/npu_contract/cann.py", str(cann))
    environment = {
        "BC2_NPU_CONTRACT": "1",
        "LD_LIBRARY_PATH": f"{cann}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        # An error is then raised by the call that made it.
        "ASCEND_LAUNCH_BLOCKING": "1",
        "TASK_QUEUE_ENABLE": "0",
    }
    session.run("pytest", "tests/npu_contract", *session.posargs, env=environment)


@nox.session
def build(session: nox.Session) -> None:
    """Builds the packages, twice with the same bytes, and uses their wheels alone in each way."""
    session.install("poetry", "twine")
    temporary = Path(session.create_tmp()).resolve()
    first, again = ROOT / "dist", temporary / "again"
    for folder in (first, again):
        shutil.rmtree(folder, ignore_errors=True)
        for package in PACKAGES:
            with session.chdir(ROOT / "packages" / package):
                session.run("poetry", "check", "--strict")
                # The time that archives give to all of their files.
                epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
                session.run("poetry", "build", "--output", str(folder), env=epoch)
    archives = sorted(first.iterdir())
    if any(path.read_bytes() != (again / path.name).read_bytes() for path in archives):
        session.error("two builds of the same sources differ")
    session.run("twine", "check", "--strict", *map(str, archives))
    for package, example in USES.items():
        fresh = temporary / f"wheels-of-{package}"
        shutil.rmtree(fresh, ignore_errors=True)
        session.run("python", "-m", "venv", str(fresh))
        wheels = [
            str(next(first.glob(f"{name.replace('-', '_')}-*.whl")))
            for name in PACKAGES[: PACKAGES.index(package) + 1]
        ]
        session.run(str(fresh / "bin" / "pip"), "install", "-c", "constraints.txt", *wheels)
        # Isolated mode: nothing of the repository is on the path.
        python = str(fresh / "bin" / "python")
        session.run(python, "-I", str(ROOT / "examples" / example), str(fresh / "example"))
        session.run(str(fresh / "bin" / package), "--help", silent=True)
        shutil.rmtree(fresh)


def install(
    session: nox.Session, *packages: str, tools: tuple[str, ...] = (), editable: bool = False
) -> None:
    """Installs packages of this repository, and tools, in one pip call.

    pip does not look for a sibling beside a package, so all of them are named at once.
    """
    prefix = ["-e"] if editable else []
    local = [part for name in packages for part in (*prefix, f"./packages/{name}")]
    session.install("-c", "constraints.txt", *tools, *local, env={"PIP_PROGRESS_BAR": "off"})
    # Several processes on one host must not each start a thread for every core.
    session.env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))
