"""The errors that bc2-model raises."""

from __future__ import annotations

from bc2_data.errors import Bc2Error


class ModelError(Bc2Error):
    """Base of the errors that bc2-model raises."""
