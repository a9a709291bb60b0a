"""One folder per checkpoint format, and what every format offers.

A format is a `CheckpointReader` (see `bc2_ckpt.formats.protocol`), which hands out tensors under
their Hugging Face names, and a function ``write(reader, directory)`` that fills an empty
directory from any reader. `bc2_ckpt.checkpoint` and `bc2_ckpt.convert` list them. What other
programs serve a model from may have the function alone.
"""

from __future__ import annotations

FORMATS = ("hf", "torch-dist", "megatron-legacy")
"""The names of the formats that can be read and written."""

WRITTEN_ONLY = ("gguf",)
"""The names of those that can be written, but not read."""
