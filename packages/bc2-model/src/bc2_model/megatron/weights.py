"""Fills this rank's shard of a model from whole tensors, through the layout table."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import set_tensor_model_parallel_attributes

from bc2_ckpt.layout import ParameterLayout
from bc2_model.megatron.model import Baichuan2Model
from bc2_model.weights import WeightSource

_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.")


@torch.no_grad()
def load_weights(model: Baichuan2Model, weights: WeightSource) -> None:
    """Sets every parameter of a model chunk, cast to the parameter's dtype.

    Args:
        model: One pipeline stage, before it is wrapped for mixed precision or data parallelism.
        weights: Tensors of the whole model under their Hugging Face names.
    """
    layout = ParameterLayout(
        model.config.model, model.config.tensor_model_parallel_size, model.vocab_size
    )
    rank = parallel_state.get_tensor_model_parallel_rank()
    for name, parameter in _global_parameters(model):
        parameter.copy_(layout.megatron_shard(name, weights.read, rank))
        axis = layout.param(name).tp
        if axis is not None:
            # megatron-core's own initialisation, which does not run, would have marked it; the
            # gradient norm counts unmarked parameters on the first rank alone.
            set_tensor_model_parallel_attributes(parameter, True, axis, 1)


def _global_parameters(model: Baichuan2Model) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yields the parameters with their layers' numbers in the whole model, counted from 0."""
    for name, parameter in model.named_parameters():
        match = _LAYER.match(name)
        if match:
            layer = model.decoder.layers[int(match[1])]
            name = f"decoder.layers.{layer.layer_number - 1}.{name[match.end() :]}"
        yield name, parameter
