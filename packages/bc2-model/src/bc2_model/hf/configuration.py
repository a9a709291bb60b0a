"""The configuration class of Baichuan for transformers."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from bc2_ckpt.config import PRESETS, ModelConfig


class BaichuanConfig(PreTrainedConfig):
    """Reads a config.json of Baichuan as it was published, and writes one without ``auto_map``.

    Which keys are needed and what they mean is `ModelConfig.from_hf`'s affair; in particular the
    position embedding follows from ``position_embedding`` or ``max_position_embeddings``.
    With no arguments it is the configuration of Baichuan2-7B.

    Args:
        **values: The keys of config.json.

    Raises:
        bc2_ckpt.errors.CkptError: A dimension is missing or impossible.
    """

    model_type = "baichuan"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 - transformers wants a list

    def __init__(self, **values: Any) -> None:
        values = values or PRESETS["baichuan2-7b"].to_hf()
        model = ModelConfig.from_hf({**values, "model_type": self.model_type})
        values = {**model.to_hf(), **values}
        # The code that it points to is not shipped with what we save, and never run.
        values.pop("auto_map", None)
        del values["model_type"]
        # transformers counts this key among those of generation and drops it.
        self.use_cache = values.pop("use_cache")
        super().__init__(**values)

    @property
    def model(self) -> ModelConfig:
        """The dimensions, as every other part of bc2 reads them."""
        return ModelConfig.from_hf(self.to_dict())
