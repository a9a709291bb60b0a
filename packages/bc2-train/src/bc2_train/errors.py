"""The errors that bc2-train raises."""

from __future__ import annotations

from bc2_data.errors import Bc2Error


class TrainError(Bc2Error):
    """Base of the errors that bc2-train raises."""
