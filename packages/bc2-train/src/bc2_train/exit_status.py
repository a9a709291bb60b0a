"""Exit statuses of training, beyond 0, 1 for a failure and 2 for what the user can mend."""

from __future__ import annotations

PREEMPTED = 75
"""The run saved its state and ended early as it was asked to: EX_TEMPFAIL of sysexits.h."""

PEER_LOST = 76
"""Another rank was gone; the reason is that rank's to tell: EX_PROTOCOL of sysexits.h."""
