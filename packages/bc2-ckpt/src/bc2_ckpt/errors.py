"""The errors that bc2-ckpt raises."""

from __future__ import annotations

from bc2_data.errors import Bc2Error


class CkptError(Bc2Error):
    """Base of the errors that bc2-ckpt raises."""


class NotACheckpointError(CkptError):
    """A path holds no checkpoint of a format that bc2 knows."""


class WrittenOnlyError(NotACheckpointError):
    """A path holds a format that bc2 writes, but does not read."""


class DamagedFileError(CkptError):
    """A file is cut short, missing, or something else than its name says."""


class UnsafeFileError(CkptError):
    """A pickled file asks for more than data; nothing of it was carried out."""


class MismatchError(CkptError):
    """Tensors and config contradict each other, or a name is unknown."""


class VerificationError(CkptError):
    """A checkpoint is not what it should be."""

    exit_status = 1
