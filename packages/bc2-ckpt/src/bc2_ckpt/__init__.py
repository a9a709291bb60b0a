"""bc2-ckpt: convert Baichuan2 checkpoints between Hugging Face and Megatron."""

__version__ = "0.1.0"
