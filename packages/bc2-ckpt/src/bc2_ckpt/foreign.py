"""Objects of upstream's own classes in what training saves, replaced by what cannot do anything.

The arguments of a run hold enumerations of Megatron and of what builds on it, the states of random
numbers are numpy's, and tensors that lay on an NPU are put together by a function of torch_npu.
None of these packages has to be installed, and nothing of them is carried out.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2

_PACKAGES = (
    "ascendspeed",
    "megatron",
    "mindspeed",
    "mindspeed_llm",
    "modellink",
    "numpy",
    "torch_npu",
)
_BUFFER = "_io.BytesIO"
"""In which Transformer Engine saved the states of its modules."""
_NPU_TENSOR = "torch_npu.utils.storage._rebuild_npu_tensor"


class Foreign:
    """Stands in for an object of an upstream class.

    Attributes:
        args: What it was to be made from.
    """

    def __init__(self, *args: object) -> None:
        self.args = args

    def __setstate__(self, state: object) -> None:
        """Takes whatever state the object had, and forgets it."""


@contextmanager
def stand_ins(source: Path | IO[bytes]) -> Iterator[None]:
    """Lets weights-only loading of one file replace what it asks for of upstream packages.

    Args:
        source: A file that torch.save wrote, or a seekable stream of one.
    """
    replaced: dict[str, Any] = dict.fromkeys(_upstream_globals(source), Foreign)
    replaced[_NPU_TENSOR] = _rebuild_npu_tensor
    named = [(stand_in, name) for name, stand_in in replaced.items()]
    with torch.serialization.safe_globals([Namespace, *named]):
        yield


def _upstream_globals(source: Path | IO[bytes]) -> list[str]:
    """Returns the names of upstream's classes and functions that a file asks for."""
    where: Any = str(source) if isinstance(source, Path) else source
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(where)
    # A damaged or hostile pickle can raise anything on its way; loading it says what is wrong.
    except Exception:
        return []
    return [name for name in names if name.partition(".")[0] in _PACKAGES or name == _BUFFER]


def _rebuild_npu_tensor(*args: Any) -> Tensor:
    """Does what torch_npu's function of this name does where there is no NPU.

    A tensor of an NPU is saved with its elements on the CPU and in row-major order; what is added
    at the end is the format that it had on the device (``_reduce_ex`` in torch_npu's storage.py).
    """
    *cpu_tensor, _npu_format = args
    rebuild: Callable[..., Tensor] = _rebuild_tensor_v2
    return rebuild(*cpu_tensor)
