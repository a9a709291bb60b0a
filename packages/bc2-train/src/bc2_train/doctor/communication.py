"""Can processes talk to each other? Each backend is really started, with one process."""

from __future__ import annotations

from collections.abc import Iterator

from bc2_train.doctor.devices import chosen
from bc2_train.doctor.finding import Finding, ok, problem
from bc2_train.doctor.subprocesses import attempt

_BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}

_TRIAL = """
import tempfile, torch, torch.distributed as dist
if {device!r} == "npu":
    import torch_npu
with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group(
        {backend!r}, store=dist.FileStore(folder + "/store", 1), rank=0, world_size=1
    )
    value = torch.ones(1, device={device!r})
    dist.all_reduce(value)
    assert value.item() == 1
    dist.destroy_process_group()
"""

_REMEDIES = {
    "gloo": "gloo asks for this host's address: its name must resolve (/etc/hosts), or set "
    "GLOO_SOCKET_IFNAME to a network interface of `ip link`",
    "nccl": "NCCL_DEBUG=INFO makes it say more; NCCL_SOCKET_IFNAME names the network interface",
    "hccl": "the messages of CANN are in ~/ascend/log; HCCL_SOCKET_IFNAME names the network "
    "interface",
}


def check(device: str) -> Iterator[Finding]:
    """Yields how gloo, which saves and data use everywhere, and the device's backend start."""
    for kind in dict.fromkeys(("cpu", chosen(device))):
        backend = _BACKENDS[kind]
        trial = attempt(_TRIAL.format(device=kind, backend=backend))
        if trial.worked:
            yield ok(f"{backend} starts and reduces on {kind}")
        else:
            yield problem(f"{backend} fails on {kind}: {trial.output}", _REMEDIES[backend])
