"""The outputs do not depend on who does the work; a worker that dies is an error, not a hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bc2_data.errors import DataError
from bc2_data.launchers import make_launcher, worker
from bc2_data.launchers.inline import InlineLauncher
from bc2_data.launchers.processes import ProcessLauncher

# Workers import this as a module of its own: a test module cannot be imported by name.
TASKS = """
import os, signal, sys
from dataclasses import dataclass
from bc2_data.errors import DataError, Bc2Error

def FILES():
    return [file for file in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{file}")]

class NeedsTwo(Bc2Error):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}", "a hint")

@dataclass(frozen=True)
class Task:
    number: int
    ending: str = "well"
    def __iter__(self):
        yield self.number
        match self.ending:
            case "killed": os.kill(os.getpid(), signal.SIGKILL)
            case "exit": os._exit(3)
            case "user": raise NeedsTwo("this", "that")
            case "system": raise OSError(28, "No space left on device")
            case "defect": raise KeyError("surprise")
            case "files": yield [os.readlink(f"/proc/self/fd/{file}") for file in FILES()]
        yield -self.number
"""


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    (tmp_path / "tasks_of_test.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tasks_of_test", raising=False)
    import tasks_of_test

    return tasks_of_test.Task  # type: ignore[no-any-return]


@pytest.fixture(params=["copies", "afresh"])
def prepare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What is done once before workers are started as copies of this process."""
    monkeypatch.setattr(worker, "_has_one_thread", lambda: request.param == "copies")
    calls: list[None] = []
    yield lambda: calls.append(None)
    assert len(calls) == (1 if request.param == "copies" else 0)


def contents(prefix: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prefix.parent.iterdir())}


@pytest.mark.parametrize("handler", ["text", "alpaca"])
def test_equal_bytes_for_any_number_of_workers(
    cli: Any, corpus_folder: Path, tokenizer_dir: Path, tmp_path: Path, handler: str
) -> None:
    made = []
    for workers in (1, 2, 3):
        prefix = tmp_path / str(workers) / "data"
        outcome = cli(
            *("tokenize", "--input", corpus_folder, "--tokenizer", tokenizer_dir),
            *("--output-prefix", prefix, "--workers", workers, "--handler", handler),
        )
        assert outcome.status == 0, outcome.err
        made.append(contents(prefix))
    assert made[0] == made[1] == made[2]
    manifest = json.loads(made[0]["data.manifest.json"])
    assert manifest["documents"] > 100
    assert manifest["dropped"]["bad_row"]["count"] > 20  # and the first are named, in order
    assert len(manifest["dropped"]["bad_row"]["examples"]) == 20
    assert all("/0.jsonl:" in place for place in manifest["dropped"]["bad_row"]["examples"][:5])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_launcher_yields_what_the_tasks_yield(task: Any, workers: int) -> None:
    launcher = make_launcher("local", workers)
    assert isinstance(launcher, ProcessLauncher if workers > 1 else InlineLauncher)
    yielded = list(launcher.run([task(number) for number in range(1, 6)]))
    assert sorted(yielded) == [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]
    assert list(launcher.run([])) == []


@pytest.mark.parametrize(
    ("ending", "error", "message"),
    [
        ("killed", DataError, "a worker was killed by SIGKILL at work on Task"),
        ("exit", DataError, r"a worker ended \(3\) at work on Task"),
        ("user", DataError, "this and that"),
        ("system", OSError, "No space left on device"),
        ("defect", RuntimeError, "KeyError: 'surprise'"),
    ],
)
def test_errors_of_workers_arrive(
    task: Any, prepare: Any, ending: str, error: Any, message: str
) -> None:
    tasks = [task(1), task(2, ending), task(3), task(4)]
    with pytest.raises(error, match=message) as caught:
        list(ProcessLauncher(2, prepare).run(tasks))
    if ending in ("user", "system", "defect"):
        assert "tasks_of_test.py" in str(caught.value.__cause__)  # where it was raised
    if ending == "user":
        assert caught.value.hint == "a hint"


def test_a_worker_may_die_between_two_tasks(task: Any, prepare: Any) -> None:
    events = ProcessLauncher(1, prepare).run([task(1), task(2)])
    assert [next(events), next(events)] == [1, -1]
    (process,) = children(os.getpid())
    time.sleep(0.2)  # it says that it is ready for the next one
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: process not in children(os.getpid()))
    with pytest.raises(DataError, match=r"killed by SIGKILL at work on Task\(number=2"):
        next(events)


def test_closing_a_launcher_stops_its_workers(task: Any, prepare: Any) -> None:
    events = ProcessLauncher(2, prepare).run([task(number) for number in range(50)])
    next(events)
    before = children(os.getpid())
    assert len(before) >= 2
    events.close()
    assert not children(os.getpid()) & before


def test_a_copy_keeps_no_file_of_its_original(task: Any, prepare: Any, tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as lock:
        os.set_inheritable(lock.fileno(), True)
        _, files, _ = ProcessLauncher(1, prepare).run([task(1, "files")])
    assert files
    assert str(tmp_path / "lock") not in files


@pytest.mark.parametrize(("threads", "method"), [(0, "fork"), (1, "spawn")])
def test_workers_are_copies_of_a_process_without_threads_only(threads: int, method: str) -> None:
    code = f"""
import threading, time
from bc2_data.launchers.worker import start_context
def prepare():
    for _ in range({threads}):
        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
print(start_context(prepare).get_start_method())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == method


def children(process: int) -> set[int]:
    """Returns the processes that a process started and that are at work for it."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()  # of a dead process empty
            if parent == process and command and b"resource_tracker" not in command:
                found.add(int(entry.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def start(*arguments: object) -> subprocess.Popen[str]:
    # What a shell starts in the background is deaf to interrupts, and so is what that starts.
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{hear}; import sys; from bc2_data.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def long_job(large_folder: Path, tokenizer_dir: Path, tmp_path: Path) -> list[object]:
    """A run that is still at work when its first shards are done, however busy the machine is."""
    return [
        *("tokenize", "--input", *[large_folder] * 10, "--tokenizer", tokenizer_dir),
        *("--output-prefix", tmp_path / "out" / "data", "--workers", 2),
    ]


def wait_for(condition: Callable[[], Any]) -> Any:
    for _ in range(2000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def test_a_worker_killed_for_memory_ends_the_run(long_job: list[object], tmp_path: Path) -> None:
    run = start(*long_job)
    folder = tmp_path / "out" / ".data.unfinished"
    wait_for(lambda: any(folder.glob("shard-*.json")))
    os.kill(max(children(run.pid)), signal.SIGKILL)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 2
    assert "error: a worker was killed by SIGKILL at work on " in err
    assert "hint: is the machine out of memory? give fewer --workers" in err
    assert "note: kept " in err
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not list(folder.glob("*.partial"))


def test_an_interrupt_stops_the_workers_and_tells_how_to_go_on(
    long_job: list[object], tmp_path: Path
) -> None:
    run = start(*long_job)
    wait_for(lambda: any((tmp_path / "out" / ".data.unfinished").glob("shard-*.json")))
    workers = children(run.pid)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert (run.returncode, out) == (130, "")
    assert err.startswith("error: interrupted\nnote: kept ")
    assert "--resume goes on from there" in err
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_workers_end_when_the_run_is_killed(long_job: list[object], tmp_path: Path) -> None:
    run = start(*long_job)
    wait_for(lambda: any((tmp_path / "out" / ".data.unfinished").glob("shard-*.json")))
    workers = children(run.pid)
    assert len(workers) == 2
    run.kill()
    run.communicate(timeout=30)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


class FakeRay(ModuleType):
    """The calls of Ray that the launcher makes; it carries tasks out when they are waited for."""

    class exceptions:  # noqa: N801 - as Ray has it
        class RayError(Exception):
            pass

    def __init__(self) -> None:
        super().__init__("ray")
        self.calls: list[str] = []
        self.most_at_a_time = 0

    def is_initialized(self) -> bool:
        return "init" in self.calls

    def init(self, **_: object) -> None:
        self.calls.append("init")

    def remote(self, function: Callable[..., Any]) -> Any:
        return SimpleNamespace(remote=lambda task: (function, task))

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most_at_a_time = max(self.most_at_a_time, len(references))
        return references[-num_returns:], references[:-num_returns]  # the last is ready first

    def get(self, reference: Any) -> Any:
        function, task = reference
        if getattr(task, "ending", "") == "killed":
            raise self.exceptions.RayError("The worker died unexpectedly")
        return function(task)

    def shutdown(self) -> None:
        self.calls.append("shutdown")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_ray_gives_the_same_bytes(
    cli: Any, ray: FakeRay, corpus_folder: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    for name, launcher in (("here", ()), ("ray", ("--launcher", "ray", "--workers", 3))):
        outcome = cli(
            *("tokenize", "--input", corpus_folder, "--tokenizer", tokenizer_dir),
            *("--output-prefix", tmp_path / name / "data", *launcher),
        )
        assert outcome.status == 0, outcome.err
    assert contents(tmp_path / "ray" / "data") == contents(tmp_path / "here" / "data")
    assert (ray.calls, ray.most_at_a_time) == (["init", "shutdown"], 3)


@pytest.mark.parametrize(
    ("ending", "error", "message"),
    [
        ("killed", DataError, "Ray could not carry out Task.*died unexpectedly"),
        ("user", DataError, "this and that"),
        ("system", OSError, "No space left on device"),
    ],
)
def test_errors_at_ray_arrive(
    ray: FakeRay, task: Any, ending: str, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        list(make_launcher("ray", 2).run([task(1), task(2, ending), task(3)]))
    assert ray.calls[-1] == "shutdown"  # nothing goes on behind the user's back


def test_ray_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match="needs Ray") as caught:
        make_launcher("ray", 2)
    assert caught.value.hint == "pip install 'bc2-data[ray]'"
