"""What ``bc2-data verify`` checks: files against the manifest, and contents against themselves."""

from bc2_data.verification.datasets import VerificationError, verify

__all__ = ["VerificationError", "verify"]
