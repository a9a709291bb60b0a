"""Baichuan2 in plain float32 PyTorch: the yardstick that every engine is compared with.

It imports no code of bc2's models or kernels and materialises every mask and bias, so that each
line can be held against the official `modeling_baichuan.py` of Baichuan2-7B-Base (rotary) and
Baichuan2-13B-Base (ALiBi). It is slow on purpose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import IGNORE_INDEX, PAD_ID


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """AdamW with decay on matrices only and one clip by the global gradient norm."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0

    @classmethod
    def load(cls, path: Path) -> TrainingRecipe:
        """Reads the keys of the same names from a JSON file."""
        recipe = json.loads(path.read_text())
        return cls(**{name: recipe[name] for name in cls.__dataclass_fields__})


class ReferenceModel:
    """One model: its dimensions and its weights under their official names."""

    def __init__(self, config: ModelConfig, weights: dict[str, Tensor]) -> None:
        self.config = config
        self.weights = {
            name: tensor.detach().float().clone().requires_grad_()
            for name, tensor in weights.items()
        }

    @classmethod
    def load(cls, directory: Path) -> ReferenceModel:
        """Reads config.json and the `.bin` shards that the index names."""
        index = json.loads((directory / "pytorch_model.bin.index.json").read_text())
        weights: dict[str, Tensor] = {}
        for shard in sorted(set(index["weight_map"].values())):
            weights.update(torch.load(directory / shard, weights_only=True))
        return cls(ModelConfig.load(directory), weights)

    def logits(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """Returns (batch, seq, vocab) logits of (batch, seq) token ids.

        `segments` (batch, seq) is a padding mask (0 and 1) or one document id per token (0 =
        padding); attention stays among equal, positive ids. Logits at padding mean nothing.
        """
        config = self.config
        segments = torch.ones_like(tokens) if segments is None else segments
        bias = self._attention_bias(segments)
        # The official embedding has padding_idx set: the row of id 0 is looked up, never trained.
        embedding = self.weights["model.embed_tokens.weight"]
        x = functional.embedding(tokens, embedding, padding_idx=PAD_ID)
        for layer in range(config.num_layers):
            prefix = f"model.layers.{layer}."
            x = x + self._attention(prefix, self._norm(prefix + "input_layernorm", x), bias)
            x = x + self._mlp(prefix, self._norm(prefix + "post_attention_layernorm", x))
        head = self.weights["lm_head.weight"]
        if config.norm_head:
            head = functional.normalize(head, dim=-1)
        return self._norm("model.norm", x) @ head.T

    def loss(self, tokens: Tensor, labels: Tensor, segments: Tensor | None = None) -> Tensor:
        """Returns the official loss of unshifted labels: they are shifted here, once."""
        logits = self.logits(tokens, segments)[:, :-1]
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
        )
        return loss + self.config.z_loss_weight * logits.max(-1).values.square().mean()

    def greedy(self, prompt: Tensor, new_tokens: int) -> Tensor:
        """Returns (1, seq) prompt ids and the most likely continuation, recomputed every step."""
        tokens = prompt
        with torch.no_grad():
            for _ in range(new_tokens):
                best = self.logits(tokens)[:, -1].argmax(-1, keepdim=True)
                tokens = torch.cat([tokens, best], dim=1)
        return tokens

    def train(
        self, batches: Iterable[Tensor], recipe: TrainingRecipe
    ) -> tuple[list[float], list[float]]:
        """Trains on batches of (rows, seq + 1) ids; returns what `train` returns."""
        return train(self.weights.values(), lambda batch: self.loss(batch, batch), batches, recipe)

    def _attention_bias(self, segments: Tensor) -> Tensor:
        """Returns (batch, heads or 1, seq, seq): ALiBi, and the lowest float where masked."""
        length = segments.shape[1]
        position = torch.arange(length)
        distance = position[None, :] - position[:, None]
        same = (segments[:, :, None] == segments[:, None, :]) & (segments[:, :, None] > 0)
        allowed = (same & (distance <= 0))[:, None]
        bias = torch.zeros(1, 1, length, length)
        if self.config.position_embedding == "alibi":
            bias = alibi_slopes(self.config.num_heads)[None, :, None, None] * distance
        # The lowest float, not -inf: rows of padding come out uniform instead of NaN.
        return torch.where(allowed, bias, torch.finfo(torch.float32).min)

    def _attention(self, prefix: str, x: Tensor, bias: Tensor) -> Tensor:
        config = self.config
        batch, length, _ = x.shape
        packed = x @ self.weights[prefix + "self_attn.W_pack.weight"].T
        q, k, v = (
            part.view(batch, length, config.num_heads, config.head_dim).transpose(1, 2)
            for part in packed.chunk(3, dim=-1)
        )
        if config.position_embedding == "rotary":
            q, k = rotate(q, config.rope_theta), rotate(k, config.rope_theta)
        scores = q @ k.transpose(-1, -2) / math.sqrt(config.head_dim) + bias
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(batch, length, -1)
        return mixed @ self.weights[prefix + "self_attn.o_proj.weight"].T

    def _mlp(self, prefix: str, x: Tensor) -> Tensor:
        gate, up, down = (
            self.weights[f"{prefix}mlp.{name}_proj.weight"] for name in ("gate", "up", "down")
        )
        return (functional.silu(x @ gate.T) * (x @ up.T)) @ down.T

    def _norm(self, name: str, x: Tensor) -> Tensor:
        variance = x.square().mean(-1, keepdim=True)
        scaled = x * torch.rsqrt(variance + self.config.rms_norm_eps)
        return self.weights[name + ".weight"] * scaled


def train(
    parameters: Iterable[Tensor],
    loss_of: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    recipe: TrainingRecipe,
) -> tuple[list[float], list[float]]:
    """Takes one AdamW step a batch.

    Returns the losses and the gradient norms before clipping, one of each a batch.
    """
    parameters = list(parameters)
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.lr,
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
    )
    losses, norms = [], []
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, recipe.clip).item())
        losses.append(loss.item())
        optimizer.step()
    return losses, norms


def alibi_slopes(heads: int) -> Tensor:
    """Returns (heads,) slopes, positive, as the official `_get_interleave` orders them."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]
    return torch.tensor(slopes)


def rotate(x: Tensor, base: float) -> Tensor:
    """Returns (..., seq, dim) queries or keys turned by their positions, halves paired."""
    length, dim = x.shape[-2:]
    inverse = 1.0 / base ** (torch.arange(0, dim, 2).float() / dim)
    angle = torch.outer(torch.arange(length).float(), inverse).repeat(1, 2)
    first, second = x.chunk(2, dim=-1)
    return x * angle.cos() + torch.cat([-second, first], dim=-1) * angle.sin()
