"""Kernels of Baichuan2: attention with ALiBi and the small operations around it.

They need torch alone, and importing this package loads nothing else.
"""

from __future__ import annotations

from bc2_model.kernels.activations import swiglu
from bc2_model.kernels.alibi import alibi_slopes
from bc2_model.kernels.cross_entropy import norm_head_cross_entropy
from bc2_model.kernels.dispatch import attention
from bc2_model.kernels.errors import KernelError
from bc2_model.kernels.norm_head import norm_head_logits
from bc2_model.kernels.norms import rms_norm
from bc2_model.kernels.rope import rotary, rotary_tables

__all__ = [
    "KernelError",
    "alibi_slopes",
    "attention",
    "norm_head_cross_entropy",
    "norm_head_logits",
    "rms_norm",
    "rotary",
    "rotary_tables",
    "swiglu",
]
