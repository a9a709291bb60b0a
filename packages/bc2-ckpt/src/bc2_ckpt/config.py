"""The dimensions of a Baichuan model, read from Hugging Face's config.json.

The two sizes of Baichuan2 share ``model_type`` and class name. What tells them apart is
``max_position_embeddings``: present in the rotary 7B, absent in the ALiBi 13B. An explicit
``position_embedding`` key wins; sizes are never used to guess.

Baichuan 1 has the same names and no NormHead. Neither release says so in config.json, so its
published vocabulary does, 64,000 tokens to Baichuan2's 125,696 (vLLM tells them apart likewise); an
explicit ``norm_head`` key wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from bc2_ckpt.errors import CkptError
from bc2_ckpt.files import read_json
from bc2_data.errors import nearest
from bc2_data.vocab import BOS_ID, EOS_ID, PAD_ID, VOCAB_SIZE

PositionEmbedding = Literal["rotary", "alibi"]

BAICHUAN1_VOCAB_SIZE = 64_000
"""Rows of the embedding in the releases that have a plain output layer."""

_VLLM_ROTARY_WIDTH = 4096


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the shapes and the function of a Baichuan model depend on.

    Attributes:
        vocab_size: True rows of the embedding and of the output layer.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the gated MLP.
        num_layers: Transformer layers.
        num_heads: Attention heads; keys and values have as many.
        position_embedding: ``rotary`` (7B) or ``alibi`` (13B).
        max_sequence_length: Tokens that the model was trained on at once.
        norm_head: Whether logits use the row-normalised output weight (NormHead, Baichuan2);
            Baichuan 1 has a plain output layer.
        rms_norm_eps: Added to the mean square under the root.
        initializer_range: Standard deviation of randomly drawn weights.
        rope_theta: Base of the rotary frequencies.
        z_loss_weight: Weight of the squared largest logit in the loss; 0 leaves it out.
        dtype: The dtype that config.json names, a torch name such as ``bfloat16``.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    position_embedding: PositionEmbedding
    max_sequence_length: int = 4096
    norm_head: bool = True
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    rope_theta: float = 10_000.0
    z_loss_weight: float = 0.0
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise CkptError(f"config: {name} is {getattr(self, name)}, which must be positive")
        if self.hidden_size % self.num_heads:
            raise CkptError(
                f"config: hidden_size {self.hidden_size} is not divisible by "
                f"num_attention_heads {self.num_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def num_parameters(self) -> int:
        """Exact number of parameters: 7,505,973,248 for 7B and 13,896,668,160 for 13B."""
        attention = 4 * self.hidden_size**2
        mlp = 3 * self.hidden_size * self.intermediate_size
        norms = 2 * self.hidden_size
        embeddings = 2 * self.vocab_size * self.hidden_size
        return embeddings + self.num_layers * (attention + mlp + norms) + self.hidden_size

    @property
    def _architecture(self) -> str:
        """The class name in config.json, which means something to vLLM alone.

        The releases, all but the first Baichuan-7B, say ``BaichuanForCausalLM``; vLLM takes that
        for rotary where the model is as wide as the 7B and for ALiBi where it is not, and
        ``BaiChuanForCausalLM`` always for rotary.
        """
        if self.position_embedding == "rotary" and self.hidden_size != _VLLM_ROTARY_WIDTH:
            return "BaiChuanForCausalLM"
        return "BaichuanForCausalLM"

    @classmethod
    def from_hf(cls, config: dict[str, Any], where: str = "config.json") -> ModelConfig:
        """Reads the keys of a Hugging Face config.json.

        Args:
            config: The parsed file.
            where: Its name, for errors.

        Raises:
            CkptError: The file is of another model, or a dimension is missing or impossible.
        """
        model_type = config.get("model_type")
        if model_type != "baichuan":
            raise CkptError(
                f"{where}: model_type is {model_type!r}, not 'baichuan'",
                "bc2 converts and trains Baichuan models",
            )
        required = {
            "vocab_size": "vocab_size",
            "hidden_size": "hidden_size",
            "intermediate_size": "intermediate_size",
            "num_layers": "num_hidden_layers",
            "num_heads": "num_attention_heads",
        }
        values: dict[str, Any] = {}
        for name, key in required.items():
            if type(config.get(key)) is not int:
                raise CkptError(f"{where}: {key!r} is missing or no whole number")
            values[name] = config[key]
        if config.get("hidden_act", "silu") != "silu":
            raise CkptError(f"{where}: hidden_act is {config['hidden_act']!r}, not 'silu'")
        if config.get("tie_word_embeddings"):
            raise CkptError(f"{where}: tie_word_embeddings is true, which no Baichuan model has")

        position = config.get("position_embedding")
        if position is None:
            position = "rotary" if "max_position_embeddings" in config else "alibi"
        if position not in get_args(PositionEmbedding):
            raise CkptError(
                f"{where}: position_embedding is {position!r}",
                nearest(str(position), get_args(PositionEmbedding)),
            )
        length = config.get("model_max_length", config.get("max_position_embeddings", 4096))
        if type(length) is not int:
            raise CkptError(f"{where}: model_max_length {length!r} is no whole number")
        for key in ("rms_norm_eps", "initializer_range", "rope_theta", "z_loss_weight"):
            if key not in config:
                continue
            if type(config[key]) not in (int, float):
                raise CkptError(f"{where}: {key} {config[key]!r} is no number")
            values[key] = float(config[key])
        norm_head = config.get("norm_head", config["vocab_size"] != BAICHUAN1_VOCAB_SIZE)
        if type(norm_head) is not bool:
            raise CkptError(f"{where}: norm_head {norm_head!r} is neither true nor false")
        return cls(
            norm_head=norm_head,
            position_embedding=cast(PositionEmbedding, position),
            max_sequence_length=length,
            dtype=config.get("torch_dtype") or config.get("dtype") or "bfloat16",
            **values,
        )

    def to_hf(self) -> dict[str, Any]:
        """Returns the config.json of this model, without `auto_map`: no code is shipped.

        ``from_hf`` reads back an equal config.
        """
        config: dict[str, Any] = {
            "architectures": [self._architecture],
            "model_type": "baichuan",
            "tokenizer_class": "BaichuanTokenizer",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "initializer_range": self.initializer_range,
            "model_max_length": self.max_sequence_length,
            "position_embedding": self.position_embedding,
            "norm_head": self.norm_head,
            "z_loss_weight": self.z_loss_weight,
            "pad_token_id": PAD_ID,
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "tie_word_embeddings": False,
            "use_cache": True,
            "torch_dtype": self.dtype,
        }
        if self.position_embedding == "rotary":
            config["max_position_embeddings"] = self.max_sequence_length
            config["rope_theta"] = self.rope_theta
        return config

    @classmethod
    def load(cls, source: str | Path) -> ModelConfig:
        """Reads a preset by name, or the config.json of a directory.

        Args:
            source: ``baichuan2-7b``, ``baichuan2-13b``, or a directory that holds config.json.

        Raises:
            CkptError: There is no such preset or file, or it cannot be read.
        """
        if str(source) in PRESETS:
            return PRESETS[str(source)]
        path = Path(source)
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise CkptError(
                f"no model config at {source}: neither a preset nor a directory with config.json",
                nearest(str(source), PRESETS),
            )
        return cls.from_hf(read_json(path), where=str(path))


PRESETS = {
    "baichuan2-7b": ModelConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=4096,
        intermediate_size=11008,
        num_layers=32,
        num_heads=32,
        position_embedding="rotary",
    ),
    "baichuan2-13b": ModelConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=5120,
        intermediate_size=13696,
        num_layers=40,
        num_heads=40,
        position_embedding="alibi",
    ),
    "tiny-7b": ModelConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=344,
        num_layers=4,
        num_heads=8,
        position_embedding="rotary",
        dtype="float32",
    ),
    "tiny-13b": ModelConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=160,
        intermediate_size=424,
        num_layers=4,
        num_heads=10,
        position_embedding="alibi",
        dtype="float32",
    ),
}
"""The big two: the config.json of baichuan-inc/Baichuan2-7B-Base and Baichuan2-13B-Base."""
