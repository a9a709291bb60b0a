"""All checks, in the order in which a run would meet what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bc2_data.errors import Bc2Error
from bc2_train.config import RunConfig
from bc2_train.doctor import (
    ascend,
    communication,
    devices,
    inputs,
    kernels,
    ports,
    run_directory,
    versions,
)
from bc2_train.doctor.finding import Finding, problem


def examine(
    config: RunConfig | None, *, processes: int, master_port: int
) -> Iterator[tuple[str, Finding]]:
    """Yields findings with the name of their group, as the checks are made.

    Args:
        config: The run that is to be started; None looks at the machine alone.
        processes: That would be started on this host.
        master_port: The port at which they are to meet; 0 = any.
    """
    device = config.device if config else "auto"
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "versions": versions.check,
        "Ascend": ascend.check,
        "devices": lambda: devices.check(device, processes),
        "communication": lambda: communication.check(device),
        "kernels": lambda: kernels.check(config),
        "ports": lambda: ports.check(config, master_port),
    }
    if config is not None:
        checks["run directory"] = lambda: run_directory.check(config)
        checks["inputs"] = lambda: inputs.check(config, processes)
    for group, check in checks.items():
        for finding in _guarded(check):
            yield group, finding


def _guarded(check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yields what a check finds; that it fails is a finding as well."""
    try:
        yield from check()
    except Bc2Error as error:
        yield problem(error.message, error.hint)
    except Exception as error:
        yield problem(
            f"the check itself failed: {type(error).__name__}: {error}",
            "what it looks at is broken in a way that bc2 does not know",
        )
