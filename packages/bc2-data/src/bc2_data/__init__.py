"""bc2-data: tokenise and pack text for Baichuan2 training."""

from bc2_data.tokenizer_training import train_tokenizer

__all__ = ["__version__", "train_tokenizer"]
__version__ = "0.1.0"
