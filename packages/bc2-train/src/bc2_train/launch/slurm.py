"""A Slurm job that trains, saves when its node is wanted, and comes back."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bc2_data.atomic import write_text
from bc2_train.config import RunConfig
from bc2_train.errors import TrainError
from bc2_train.exit_status import PREEMPTED


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked of Slurm.

    Attributes:
        nodes: Hosts.
        processes: Workers on each.
        gpus: GPUs or other devices of each, by Slurm's count; 0 = ask for none.
        time: Time limit as sbatch takes it; empty for the partition's.
        partition: Partition; empty for the default.
        save_seconds: Seconds before the time limit at which the run is asked to save.
        max_restarts: Restarts within the job, see `bc2_train.launch.launch`.
    """

    nodes: int = 1
    processes: int = 1
    gpus: int = 0
    time: str = ""
    partition: str = ""
    save_seconds: int = 300
    max_restarts: int = 0


# The batch script gets SIGTERM before the time limit and hands it to the launchers, which save and
# end with the status on which the job goes back into the queue. It asks scancel to: srun itself
# kills its tasks at SIGTERM. --kill-on-bad-exit=0: launchers end together by themselves.
_SCRIPT = """\
#!/bin/bash
{directives}

master=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 --export=ALL,MASTER="$master",PORT="$port" \\
    bash -c 'exec {command} --node-rank "$SLURM_NODEID" \\
        --master-addr "$MASTER" --master-port "$PORT"' &
srun_pid=$!
trap 'scancel --signal=TERM "$SLURM_JOB_ID"' TERM

wait "$srun_pid"
while kill -0 "$srun_pid" 2>/dev/null; do  # a signal ends the waiting, but not srun
    wait "$srun_pid"
done
wait "$srun_pid"  # srun may have ended just behind a signal: the shell remembers its status
status=$?

if [ "$status" -eq {preempted} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def write_script(config: RunConfig, config_file: Path, job: Job) -> Path:
    """Writes ``slurm.sbatch`` into the run directory and returns its path.

    Args:
        config: The run.
        config_file: The same, resolved, on a file system of all nodes.
        job: What to ask Slurm for.
    """
    run_dir = config.run_dir.absolute()
    options = {
        "job-name": f"bc2-{run_dir.name}",
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": job.gpus or "",
        "time": job.time,
        "partition": job.partition,
        "requeue": None,
        "signal": f"B:TERM@{job.save_seconds}",
        "open-mode": "append",  # what was said before a requeue stays
        "output": run_dir / "slurm-%j.txt",
        "chdir": Path.cwd(),  # relative paths in the configuration count from here
    }
    directives = [
        f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={_quoted(str(value))}"
        for name, value in options.items()
        if value != ""
    ]
    train = str(Path(sys.executable).with_name("bc2-train"))
    command = [train, "run", str(config_file.absolute()), "--nnodes", str(job.nodes)]
    command += ["--nproc-per-node", str(job.processes), "--max-restarts", str(job.max_restarts)]
    text = _SCRIPT.format(
        directives="\n".join(directives),
        command=shlex.join(command).replace("'", "'\\''"),  # it stands within single quotes
        preempted=PREEMPTED,
    )
    path = run_dir / "slurm.sbatch"
    write_text(path, text)
    return path


def submit(script: Path) -> str:
    """Submits a batch script and returns the job's id.

    Raises:
        TrainError: There is no Slurm here, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise TrainError(
            f"there is no sbatch on this host, so {script} was written but not submitted",
            f"run this on a login node of the cluster: sbatch {shlex.quote(str(script))}",
        )
    result = subprocess.run(
        ["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise TrainError(
            f"sbatch refused {script}: {result.stderr.strip()}",
            "sinfo shows partitions and their limits",
        )
    return result.stdout.strip().partition(";")[0]  # of several clusters, its name follows


def _quoted(value: str) -> str:
    """Returns an option's value as sbatch reads it."""
    return f'"{value}"' if any(c.isspace() for c in value) else value
