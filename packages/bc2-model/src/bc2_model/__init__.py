"""bc2-model: ALiBi and flash-attention kernels and the Baichuan2 model."""

__version__ = "0.1.0"
