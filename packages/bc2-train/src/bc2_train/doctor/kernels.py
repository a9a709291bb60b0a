"""Which attention kernel would run, and why the better ones would not."""

from __future__ import annotations

from collections.abc import Iterator

from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_train.config import RunConfig
from bc2_train.doctor.devices import chosen
from bc2_train.doctor.finding import Finding, ok, warning


def check(config: RunConfig | None) -> Iterator[Finding]:
    """Yields the choice for the run's model, or for both sizes where no run is given."""
    if config is not None:
        yield from _choice(
            config.model.config,
            ModelConfig.load(config.model.config),
            chosen(config.device),
            config.precision,
            packed=config.data.kind == "instruction" or not config.data.cross_document_attention,
        )
        return
    device = chosen("auto")
    for name in ("baichuan2-7b", "baichuan2-13b"):
        yield from _choice(name, PRESETS[name], device, "bfloat16", packed=False)


def _choice(
    name: str, model: ModelConfig, device: str, precision: str, *, packed: bool
) -> Iterator[Finding]:
    import torch

    from bc2_model.kernels import alibi_slopes
    from bc2_model.kernels.backends.registry import BACKENDS, select
    from bc2_model.kernels.problem import make_problem

    length = 128  # what is asked for is the same at every length of training
    shape = (1, model.num_heads, length, model.head_dim)
    q = torch.empty(shape, dtype=getattr(torch, precision), device=device)
    slopes = None
    if model.position_embedding == "alibi":
        slopes = alibi_slopes(model.num_heads).to(device)
    problem = make_problem(
        q=q,
        k=q,
        v=q,
        alibi_slopes=slopes,
        causal=True,
        segment_ids=torch.ones(1, length, dtype=torch.int32, device=device) if packed else None,
        cu_seqlens=None,
        scale=None,
        q_offset=None,
        k_offset=0,
    )
    best = select(problem)
    text = f"attention of {name} in {precision} on {device}: {best.NAME}"
    if best.NAME == "reference":
        yield warning(f"{text}, which is correct but slow", "bc2-model kernels says why")
    else:
        yield ok(text)
    for backend in BACKENDS[: BACKENDS.index(best)]:
        yield ok(f"  not {backend.NAME}: {backend.unsupported_reason(problem)}")
