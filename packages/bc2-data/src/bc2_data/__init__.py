"""bc2-data: tokenise and pack text for Baichuan2 training."""

__version__ = "0.1.0"
