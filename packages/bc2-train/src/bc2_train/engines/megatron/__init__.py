"""The engine on megatron-core: its parallel state, schedules, DDP, optimizer and checkpoints."""

from bc2_train.engines.megatron.engine import MegatronEngine

__all__ = ["MegatronEngine"]
