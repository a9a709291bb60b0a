"""Two hosts: network namespaces with a switch between them, whose cables can be pulled.

Each has a host name, an address and a loopback of its own; files are shared, as on a cluster. That
takes root and iproute2.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runs import finished_losses, make_inputs, run_command, wait_until

ADDRESSES = ("10.219.7.1", "10.219.7.2")
HANG_TIMEOUT = 8.0


class Cluster:
    """Two hosts and a switch."""

    def __init__(self) -> None:
        self._name = f"bc2{secrets.token_hex(3)}"
        self.names = [f"{self._name}h{host}" for host in (0, 1)]
        self._switch = f"{self._name}s"
        self._running: list[subprocess.Popen[str]] = []

    def set_up(self) -> None:
        switch = self._switch
        for namespace in (switch, *self.names):
            _ip("netns", "add", namespace)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host, (name, address) in enumerate(zip(self.names, ADDRESSES, strict=True)):
            cable = f"port{host}"
            ends = ("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", switch, *ends)
            _ip("-n", switch, "link", "set", cable, "master", "bridge", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "eth0", "up")

    def tear_down(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
        for namespace in (*self.names, self._switch):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    def link(self, state: str) -> None:
        """Pulls the cable of host 1 out of the switch (``down``), or puts it back (``up``)."""
        _ip("-n", self._switch, "link", "set", "port1", state)

    def start(self, host: int, command: list[str]) -> subprocess.Popen[str]:
        name = self.names[host]
        renamed = 'hostname "$0" && exec "$@"'
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", renamed, name, *command],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return process


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two hosts take network namespaces: run as root, with iproute2 installed")
    made = Cluster()
    try:
        try:
            made.set_up()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield made
    finally:
        made.tear_down()


def one_rank_command(inputs: Path, run_dir: Path, *options: str) -> list[str]:
    command = run_command(inputs, run_dir, *options)
    command[command.index("--nproc-per-node") + 1] = "1"
    return command


def start(
    cluster: Cluster, inputs: Path, run_dir: Path, *options: str, arguments: tuple[str, ...] = ()
) -> list[subprocess.Popen[str]]:
    """Starts the same run of two ranks on both hosts."""
    settings = (f"launch.hang_timeout={HANG_TIMEOUT}", *options)
    command = one_rank_command(inputs, run_dir, *settings)
    meeting = ["--nnodes", "2", "--master-addr", ADDRESSES[0], "--master-port", "29500"]
    return [
        cluster.start(host, [*command, *meeting, "--node-rank", str(host), *arguments])
        for host in (0, 1)
    ]


def steps(run_dir: Path) -> int:
    return len(finished_losses(run_dir)) if (run_dir / "metrics.jsonl").exists() else 0


def test_two_hosts_take_the_steps_of_one_and_survive_a_cut_link(
    cluster: Cluster, tmp_path: Path
) -> None:
    inputs = make_inputs(tmp_path)
    one_host = tmp_path / "one-host"
    subprocess.run(
        run_command(inputs, one_host, "train.iterations=120", "checkpoint.interval=20"),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=300,
    )

    run_dir = tmp_path / "two-hosts"
    options = ("train.iterations=120", "checkpoint.interval=20")
    hosts = start(cluster, inputs, run_dir, *options)
    wait_until(lambda: steps(run_dir) >= 30 or any(host.poll() is not None for host in hosts))
    cluster.link("down")
    cut = time.monotonic()
    outputs = [host.communicate(timeout=90)[0] for host in hosts]
    took = time.monotonic() - cut
    sys.stdout.write(f"both hosts ended {took:.1f} s after the cut\n" + "".join(outputs))
    assert all(host.returncode not in (0, 2, 75) for host in hosts)
    assert took < HANG_TIMEOUT + 30
    assert f"lost contact with host 1 ({cluster.names[1]}, {ADDRESSES[1]})" in outputs[0]
    assert f"({cluster.names[1]}) lost contact with host 0 at {ADDRESSES[0]}:29500" in outputs[1]
    reached = steps(run_dir)
    assert 30 <= reached < 120

    cluster.link("up")
    hosts = start(cluster, inputs, run_dir, *options)
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "".join(outputs)
    saved = reached // 20 * 20
    assert any(f"iteration {saved - back}\n" in outputs[0] for back in (0, 20))
    assert finished_losses(run_dir) == finished_losses(one_host)


def test_a_cut_link_that_heals_costs_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    run_dir = tmp_path / "run"
    options = ("train.iterations=100", "checkpoint.interval=10")
    hosts = start(cluster, inputs, run_dir, *options, arguments=("--max-restarts", "3"))
    wait_until(lambda: steps(run_dir) >= 15 or any(host.poll() is not None for host in hosts))
    cluster.link("down")
    time.sleep(HANG_TIMEOUT + 4)
    cluster.link("up")
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "".join(outputs)
    assert all("; restart 1 of 3" in output for output in outputs)
    assert "resumed from " in outputs[0]
    assert [iteration for iteration, _, _ in finished_losses(run_dir)] == list(range(1, 101))
