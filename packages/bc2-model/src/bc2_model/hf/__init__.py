"""Baichuan for transformers 5, without remote code: ``bc2_model.hf.register()``."""

from __future__ import annotations

from bc2_model.hf.configuration import BaichuanConfig
from bc2_model.hf.modeling import BaichuanForCausalLM, BaichuanModel
from bc2_model.hf.tokenization import BaichuanTokenizer

__all__ = [
    "BaichuanConfig",
    "BaichuanForCausalLM",
    "BaichuanModel",
    "BaichuanTokenizer",
    "register",
]


def register() -> None:
    """Makes AutoConfig, AutoTokenizer, AutoModel and AutoModelForCausalLM know Baichuan.

    Directories whose config.json names remote code then load with the classes here, and the code
    stays unread. Calling it again changes nothing.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    AutoConfig.register("baichuan", BaichuanConfig, exist_ok=True)
    AutoTokenizer.register(BaichuanConfig, slow_tokenizer_class=BaichuanTokenizer, exist_ok=True)
    AutoModel.register(BaichuanConfig, BaichuanModel, exist_ok=True)
    AutoModelForCausalLM.register(BaichuanConfig, BaichuanForCausalLM, exist_ok=True)
