"""`bc2-train launch slurm`: commands of Slurm's names that carry the script out on this host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bc2_train import config as configuration
from bc2_train.errors import TrainError
from bc2_train.launch.slurm import Job, submit, write_script

# Runs the batch script as Slurm would: again after each requeue, preempted once where asked.
SBATCH = """\
[ "$1" = --parsable ] && script=$2
grep -q '^#SBATCH --nodes=2$' "$script" || { echo "sbatch: error: nodes" >&2; exit 1; }
export SLURM_JOB_ID=4711 SLURM_JOB_NODELIST='node[0-1]' SLURM_NNODES=2
export SLURM_RESTART_COUNT=0
while :; do
    rm -f requeued
    bash "$script" >> job.log 2>&1 &
    batch=$!
    while kill -0 $batch 2>/dev/null && [ "$(ls ready_* 2>/dev/null | wc -l)" != 2 ]; do
        sleep 0.05
    done
    [ "$SLURM_RESTART_COUNT" = 0 ] && kill -TERM $batch
    wait $batch
    echo $? >> statuses
    rm -f ready_*
    [ -e requeued ] || break
    SLURM_RESTART_COUNT=$((SLURM_RESTART_COUNT + 1))
done
echo '4711;cluster'
"""
SCONTROL = """\
case "$1 $2" in
    "show hostnames") echo 127.0.0.1; echo other ;;
    "requeue 4711") touch requeued ;;
    *) exit 1 ;;
esac
"""
SCANCEL = """\
[ "$1 $2" = "--signal=TERM 4711" ] && kill -TERM $(cat tasks)
"""
# One task a node, whose highest status is srun's; it kills them at SIGTERM, as srun does.
SRUN = """\
for option in "$@"; do
    case "$option" in
        --export=ALL,*) export $(echo "${option#--export=ALL,}" | tr , ' '); shift ;;
        --*) shift ;;
        *) break ;;
    esac
done
for node in 0 1; do SLURM_NODEID=$node "$@" & pids="$pids $!"; done
echo $pids > tasks
trap 'kill -KILL $pids' TERM
status=0
for pid in $pids; do
    while :; do
        wait $pid
        kill -0 $pid 2>/dev/null || break
    done
    wait $pid; one=$?
    [ $one -gt $status ] && status=$one
done
exit $status
"""
# Stands for bc2-train: says how it was called; on SIGTERM it ends as a run that has saved does.
TRAIN = """\
import os, signal, sys, time
rank = sys.argv[sys.argv.index("--node-rank") + 1]
def preempted(number, frame):
    os._exit(75)
signal.signal(signal.SIGTERM, preempted)
with open("calls_" + rank, "a") as file:
    file.write("|".join(sys.argv[1:]) + "\\n")
open("ready_" + rank, "w").close()
first = os.environ["SLURM_RESTART_COUNT"] == "0"
time.sleep(60 if first else 0.2)
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, now the working one, in which Slurm's commands are on the PATH."""
    folder = tmp_path / "a folder's name"
    commands = tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    scripts = {"sbatch": SBATCH, "scontrol": SCONTROL, "scancel": SCANCEL, "srun": SRUN}
    for name, script in scripts.items():
        (commands / name).write_text(f"#!/bin/bash\n{script}")
    (commands / "bc2-train").write_text(f"#!{sys.executable}\n{TRAIN}")
    for command in commands.iterdir():
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setattr("bc2_train.launch.slurm.sys.executable", str(commands / "python"))
    monkeypatch.chdir(folder)
    return folder


def a_config(run_dir: Path) -> configuration.RunConfig:
    return configuration.load(
        "tiny-13b", ["data.prefix=none", f"run.dir={run_dir}", "data.seq_length=8"]
    )


def calls(cluster: Path, node: int) -> list[list[str]]:
    return [line.split("|") for line in (cluster / f"calls_{node}").read_text().splitlines()]


def test_a_preempted_job_goes_back_into_the_queue_and_finishes(cluster: Path) -> None:
    run_dir = cluster / "it's a run"
    run_dir.mkdir()
    job = Job(nodes=2, processes=4, max_restarts=3)
    script = write_script(a_config(run_dir), run_dir / "config.yaml", job)
    assert submit(script) == "4711"
    log = (cluster / "job.log").read_text()
    assert (cluster / "statuses").read_text() == "75\n0\n", log
    for node in (0, 1):
        first, second = calls(cluster, node)
        assert first == second
        options = "--nnodes 2 --nproc-per-node 4 --max-restarts 3 --node-rank"
        meeting = "--master-addr 127.0.0.1 --master-port 24711"
        expected = f"{options} {node} {meeting}".split()
        assert first == ["run", str(run_dir / "config.yaml"), *expected]


def test_what_slurm_is_asked_for(cluster: Path) -> None:
    run_dir = cluster / "run"
    run_dir.mkdir()
    job = Job(nodes=2, processes=8, gpus=8, time="2-00:00:00", partition="train")
    script = write_script(a_config(run_dir), run_dir / "config.yaml", job)
    directives = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert directives == [
        "#SBATCH --job-name=bc2-run",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --time=2-00:00:00",
        "#SBATCH --partition=train",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:TERM@300",
        "#SBATCH --open-mode=append",
        f'#SBATCH --output="{run_dir}/slurm-%j.txt"',
        f'#SBATCH --chdir="{cluster}"',
    ]
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_slurm_that_refuses_and_slurm_that_is_absent(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = cluster / "run"
    run_dir.mkdir()
    script = write_script(a_config(run_dir), run_dir / "config.yaml", Job(nodes=1))
    with pytest.raises(TrainError, match=r"sbatch refused .*: sbatch: error: nodes"):
        submit(script)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TrainError, match=r"no sbatch on this host, so .* was written"):
        submit(script)
