"""bc2-train: distributed Baichuan2 training on megatron-core and DeepSpeed."""

__version__ = "0.1.0"
