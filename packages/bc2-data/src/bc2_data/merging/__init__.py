"""Joins datasets: the parts of a job done on several machines, or any that were made alike."""

from bc2_data.merging.datasets import merge

__all__ = ["merge"]
