"""The errors that bc2-ckpt raises."""

from __future__ import annotations

from bc2_data.errors import Bc2Error


class CkptError(Bc2Error):
    """Base of the errors that bc2-ckpt raises."""
