"""Are the ports free at which processes and dashboards meet?"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from bc2_train.config import RunConfig
from bc2_train.doctor.finding import Finding, ok, problem, warning


def check(config: RunConfig | None, master_port: int) -> Iterator[Finding]:
    """Yields whether this host's name resolves and the ports can be listened on.

    Args:
        config: The run, which may have a port for Prometheus.
        master_port: Of the meeting of the processes; 0 = any.
    """
    yield _name()
    yield _port("the port where processes meet", master_port, "another --master-port")
    if config is not None and config.metrics.prometheus_port:
        yield _port(
            "metrics.prometheus_port",
            config.metrics.prometheus_port,
            "another metrics.prometheus_port",
        )


def _name() -> Finding:
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError as error:
        return warning(
            f"the name of this host, {name}, does not resolve: {error}",
            f"add it to /etc/hosts, or give --master-addr as a number: hostname -I, not {name}",
        )
    return ok(f"{name} is {address}")


def _port(what: str, port: int, remedy: str) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return problem(
                f"{what}, {port}, cannot be used: {error.strerror}",
                f"choose {remedy}; `ss -ltnp sport = :{port}` shows who has it",
            )
        return ok(f"{what}: {port or 'any, and there are free ones'}{' is free' if port else ''}")
