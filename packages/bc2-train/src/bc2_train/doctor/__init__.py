"""Is this machine ready to train: checks, each of which tells what to do about what it finds."""

from bc2_train.doctor.finding import Finding, Level

__all__ = ["Finding", "Level"]
