"""`bc2-train launch slurm` and `pulse` with a real Slurm of one node, set up for these tests."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bc2_train.launch.rendezvous import free_port
from runs import TRAIN, finished_losses, make_inputs, run_command, wait_until

pytestmark = pytest.mark.skipif(
    "BC2_SLURM" not in os.environ, reason="starts a Slurm of its own: nox -s slurm"
)

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """\
ClusterName=bc2
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
Epilog={folder}/epilog.sh
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=train Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A controller and a node, whose files are in one folder."""

    def __init__(self, folder: Path) -> None:
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._folder = folder
        self.held = folder / "held"  # while it exists, jobs that have ended stay COMPLETING
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["OMP_NUM_THREADS"] = "1"

    def start(self) -> None:
        folder = self._folder
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=socket.gethostname(),
                user=getpass.getuser(),
                folder=folder,
                controller_port=free_port(),
                node_port=free_port(),
                cpus=os.cpu_count(),
            )
        )
        epilog = folder / "epilog.sh"
        epilog.write_text(f"#!/bin/sh\nwhile [ -e {self.held} ]; do sleep 0.1; done\n")
        epilog.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{option}={folder}/munge.{name}" for option, name in names.items()]
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *files)
        wait_until((folder / "munge.socket").exists, timeout=20)
        self._daemon("slurmctld", "-D")
        wait_until(lambda: "UP" in self.say("scontrol", "ping"), timeout=30)
        self._daemon("slurmd", "-D")
        wait_until(lambda: "idle" in self.say("sinfo", "--noheader", "--format=%t"), timeout=60)

    def say(self, *command: str) -> str:
        return subprocess.run(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        ).stdout

    def state(self, job: str) -> str:
        return self.say("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job)

    def pulse(self, run_dir: Path, job: str) -> str:
        text = self.say(TRAIN, "pulse", str(run_dir), "--slurm-job", job, "--json")
        return str(json.loads(text)["state"])

    def stop(self) -> None:
        self.say("scancel", "--user", getpass.getuser())
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _daemon(self, *command: str) -> None:
        log = open(self._folder / f"{command[0]}.txt", "wb")  # noqa: SIM115 - the daemon's
        self._daemons.append(
            subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        )
        log.close()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    missing = [daemon for daemon in DAEMONS if shutil.which(daemon) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a Slurm of one node takes root and {', '.join(DAEMONS)}; missing: {missing}")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    made = Slurm(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def submit(slurm: Slurm, inputs: Path, run_dir: Path, *options: str) -> str:
    command = run_command(inputs, run_dir, *options)
    command[1:2] = ["launch", "slurm"]
    text = slurm.say(*command, "--time", "10:00")
    assert "submitted it as job " in text, text
    return text.partition("submitted it as job ")[2].split()[0]


def test_a_job_that_is_asked_to_end_saves_is_requeued_and_finishes(
    slurm: Slurm, tmp_path: Path
) -> None:
    inputs = make_inputs(tmp_path)
    run_dir = tmp_path / "run"
    steps = "train.iterations=120"
    job = submit(slurm, inputs, run_dir, steps, "checkpoint.interval=0")
    log = run_dir / f"slurm-{job}.txt"
    wait_until(lambda: "RUNNING" in slurm.state(job))
    wait_until(lambda: (run_dir / "metrics.jsonl").exists() and len(finished_losses(run_dir)) > 5)
    assert slurm.pulse(run_dir, job) == "running"

    slurm.held.touch()
    slurm.say("scancel", "--batch", "--signal=TERM", job)
    wait_until(lambda: "COMPLETING" in slurm.state(job))
    assert slurm.pulse(run_dir, job) == "scheduled"
    slurm.held.unlink()
    wait_until(lambda: "PENDING" in slurm.state(job))
    reached = len(finished_losses(run_dir))
    assert 5 < reached < 120, log.read_text()
    assert slurm.pulse(run_dir, job) == "scheduled"
    # Slurm lets a requeued job rest for two minutes.
    wait_until(lambda: not slurm.say("scontrol", "update", f"JobId={job}", "StartTime=now"))
    wait_until(lambda: "COMPLETED" in slurm.state(job))
    assert f"resumed from {run_dir}/checkpoints/iter_{reached:07d}" in log.read_text()
    assert slurm.pulse(run_dir, job) == "finished"

    undisturbed = tmp_path / "undisturbed"
    subprocess.run(
        run_command(inputs, undisturbed, steps, "checkpoint.interval=0"),
        env=slurm.environment,
        check=True,
        stdout=sys.stderr,
    )
    assert finished_losses(run_dir) == finished_losses(undisturbed)


def test_a_job_that_fails_and_one_that_is_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    failing = tmp_path / "failing"
    job = submit(slurm, inputs, failing, "checkpoint.resume=never")
    wait_until(lambda: "COMPLETED" in slurm.state(job))
    job = submit(slurm, inputs, failing, "checkpoint.resume=never")  # it holds checkpoints now
    wait_until(lambda: "FAILED" in slurm.state(job))
    assert "checkpoint.resume is never" in (failing / f"slurm-{job}.txt").read_text()
    assert slurm.pulse(failing, job) == "failed"

    cancelled = tmp_path / "cancelled"
    job = submit(slurm, inputs, cancelled, "train.iterations=100000")
    wait_until(lambda: (cancelled / "checkpoints" / "iter_0000003").exists())
    slurm.say("scancel", job)
    wait_until(lambda: "CANCELLED" in slurm.state(job))
    assert slurm.pulse(cancelled, job) == "failed"
