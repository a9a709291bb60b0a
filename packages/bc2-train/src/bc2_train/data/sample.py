"""One training sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sample:
    """A row of inputs with their targets, already shifted: the only shift there is.

    Its length is its own; a micro batch is padded to one length.

    Attributes:
        tokens: (seq,) int64 inputs.
        labels: (seq,) int64 targets: the token after each input. Where no loss is wanted, any id.
        loss_mask: (seq,) bool, true where the prediction is trained.
        segment_ids: (seq,) int64: 1, 2, ... for each packed document, 0 = padding; None where the
            whole row is one document.
    """

    tokens: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    loss_mask: npt.NDArray[np.bool_]
    segment_ids: npt.NDArray[np.int64] | None


class Dataset(Protocol):
    """Samples by number, the same on every process."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
