"""Baichuan2 on megatron-core: the stock GPTModel with our attention, norm and output layer."""

from bc2_model.megatron.model import Baichuan2Model
from bc2_model.megatron.transformer import Baichuan2TransformerConfig
from bc2_model.megatron.weights import load_weights

__all__ = ["Baichuan2Model", "Baichuan2TransformerConfig", "load_weights"]
