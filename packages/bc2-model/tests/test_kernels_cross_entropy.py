"""The fused head and loss against the plain formula in float64, alone and over two ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor, distributed, multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode

from bc2_model.kernels import KernelError, cross_entropy, norm_head_cross_entropy

HIDDEN, VOCABULARY, TOKENS = 24, 300, 290  # more than two chunks of tokens


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes chunks of 128 rows."""
    monkeypatch.setattr(cross_entropy, "_FEWEST_LOGITS", 0)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states that make sharp predictions, rows of many lengths, labels with gaps."""
    hidden = 4 * randn(TOKENS, HIDDEN)
    weight = randn(VOCABULARY, HIDDEN, seed=1) * torch.logspace(-2, 1, VOCABULARY)[:, None]
    labels = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(2))
    labels[::7] = -100
    return hidden.to(dtype), weight.to(dtype), labels


def plain(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    normalise: bool = True,
    z_loss_weight: float = 0.0,
    vocab_size: int | None = None,
) -> Tensor:
    """The official way: a normalised weight, whole logits, softmax in float32."""
    logits = hidden @ (F.normalize(weight) if normalise else weight)[:vocab_size].T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits, labels, reduction="none")
    return losses + z_loss_weight * logits.amax(-1).square()


def solve(function: Callable[..., Tensor], dtype: torch.dtype, **options: Any) -> list[Tensor]:
    """Returns the losses and the gradients of hidden and weight."""
    hidden, weight, labels = inputs(dtype)
    return solve_for(function, hidden, weight, labels, **options)


def solve_for(
    function: Callable[..., Tensor],
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    factors: Tensor | None = None,
    **options: Any,
) -> list[Tensor]:
    hidden, weight = (x.detach().clone().requires_grad_() for x in (hidden, weight))
    losses = function(hidden, weight, labels, **options)
    loss = losses.sum() if factors is None else (losses * factors).sum()
    return [losses.detach(), *torch.autograd.grad(loss, (hidden, weight))]


def gold(factors: Tensor | None = None, **options: Any) -> list[Tensor]:
    return solve(plain, torch.float64, factors=factors, **options)


def error(got: list[Tensor], want: list[Tensor]) -> list[float]:
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(got, want, strict=True)]


OPTIONS = [
    {},
    {"normalise": False},
    {"z_loss_weight": 1e-2},
    {"vocab_size": 257},
]


def with_labels_below(vocab_size: int | None) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight, labels = inputs(torch.float64)
    return hidden, weight, labels.clamp(max=(vocab_size or VOCABULARY) - 1)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weighed", [False, True], ids=["summed", "weighed"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_it_is_the_plain_way(
    dtype: torch.dtype, tolerance: float, weighed: bool, options: dict[str, Any]
) -> None:
    hidden, weight, labels = with_labels_below(options.get("vocab_size"))
    factors = randn(TOKENS, seed=3) if weighed else None
    want = solve_for(plain, hidden, weight, labels, factors, **options)
    got = solve_for(
        norm_head_cross_entropy, hidden.to(dtype), weight.to(dtype), labels, factors, **options
    )
    assert [x.dtype for x in got] == [dtype] * 3
    assert max(error(got, want)) < tolerance


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_16_bits_are_no_worse_than_the_plain_way(
    dtype: torch.dtype, options: dict[str, Any]
) -> None:
    hidden, weight, labels = inputs(dtype)
    want = solve_for(plain, hidden.double(), weight.double(), labels, **options)
    official = solve_for(plain, hidden, weight, labels, **options)
    got = solve_for(norm_head_cross_entropy, hidden, weight, labels, **options)
    assert [x.dtype for x in got] == [torch.float32, dtype, dtype]
    for ours, theirs in zip(error(got, want), error(official, want), strict=True):
        assert ours < 1.1 * theirs


@pytest.mark.parametrize("factors", [None, torch.rand(5)], ids=["summed", "weighed"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_are_exact(options: dict[str, Any], factors: Tensor | None) -> None:
    hidden, weight = randn(5, 6).requires_grad_(), randn(300, 6, seed=1).requires_grad_()
    labels = torch.tensor([3, -100, 255, 0, 3])

    def total(hidden: Tensor, weight: Tensor) -> Tensor:
        losses = norm_head_cross_entropy(hidden, weight, labels, **options)
        return losses.sum() if factors is None else losses @ factors.double()

    assert torch.autograd.gradcheck(total, (hidden, weight), fast_mode=True)


def test_a_small_float16_gradient_survives_with_its_loss_scale() -> None:
    hidden, weight, labels = inputs(torch.float16)
    scaled = solve_for(
        lambda *args: norm_head_cross_entropy(*args) * 2**16 / TOKENS / 2**10,
        hidden * 2**-6,
        weight,
        labels,
    )
    want = solve_for(plain, (hidden * 2**-6).double(), weight.double(), labels)
    assert max(error(scaled[1:], [x * 2**6 / TOKENS for x in want[1:]])) < 2e-3


def test_a_row_shorter_than_eps_is_divided_by_eps() -> None:
    hidden, weight, labels = inputs(torch.float64)
    weight[3] = 0
    weight[4] *= 1e-16
    want, got = (
        solve_for(function, hidden, weight, labels) for function in (plain, norm_head_cross_entropy)
    )
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_labels_may_have_any_shape() -> None:
    hidden, weight, labels = inputs(torch.float32)
    flat = norm_head_cross_entropy(hidden, weight, labels)
    folded = norm_head_cross_entropy(
        hidden.view(29, 10, HIDDEN), weight, labels.view(29, 10).to(torch.int32)
    )
    assert torch.equal(folded, flat.view(29, 10))


def test_nothing_trained_gives_zeros() -> None:
    hidden, weight, labels = inputs(torch.float32)
    got = solve_for(norm_head_cross_entropy, hidden, weight, torch.full_like(labels, -100))
    assert all(torch.equal(x, torch.zeros_like(x)) for x in got)


def test_no_token_gives_zero_gradients() -> None:
    hidden, weight, labels = inputs(torch.float32)
    losses, *grads = solve_for(norm_head_cross_entropy, hidden[:0], weight, labels[:0])
    assert losses.shape == (0,)
    assert all(x.count_nonzero() == 0 for x in grads)


@pytest.mark.parametrize("factors", [None, randn(TOKENS).float()], ids=["summed", "weighed"])
def test_a_second_backward_pass_gives_the_same(factors: Tensor | None) -> None:
    hidden, weight, labels = inputs(torch.float32)
    leaves = [x.requires_grad_() for x in (hidden, weight)]
    losses = norm_head_cross_entropy(hidden, weight, labels)
    loss = 3 * losses.sum() if factors is None else (losses * factors).sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    assert max(error(list(second), [x.double() for x in first])) < 1e-6


@pytest.mark.parametrize("frozen", [0, 1], ids=["hidden", "weight"])
def test_a_frozen_input_gets_no_gradient(frozen: int) -> None:
    hidden, weight, labels = inputs(torch.float32)
    leaves = [hidden, weight]
    leaves[1 - frozen].requires_grad_()
    norm_head_cross_entropy(hidden, weight, labels).mean().backward()
    assert leaves[frozen].grad is None
    want = gold()[2 - frozen] / TOKENS
    assert max(error([leaves[1 - frozen].grad], [want])) < 2e-6


def test_autocast_leaves_it_alone() -> None:
    hidden, weight, labels = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = solve_for(norm_head_cross_entropy, hidden, weight, labels)
    assert max(error(got, gold())) < 2e-6


def test_bad_arguments_are_named() -> None:
    hidden, weight, labels = inputs(torch.float32)
    for message, arguments, options in (
        ("weight must be", (hidden, weight[:, 1:], labels), {}),
        ("one floating dtype", (hidden, weight.double(), labels), {}),
        ("labels must be integers", (hidden, weight, labels[1:]), {}),
        ("labels must be integers", (hidden, weight, labels.float()), {}),
        ("vocab_size must be 1 to 300", (hidden, weight, labels), {"vocab_size": 301}),
        ("0 to 199", (hidden, weight, labels), {"vocab_size": 200}),
    ):
        with pytest.raises(KernelError, match=message):
            norm_head_cross_entropy(*arguments, **options)


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest new tensor and counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.products = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket.__name__ in ("mm", "addmm", "addmm_")
        results = result if isinstance(result, tuple) else (result,)
        for returned, tensor in zip(func._schema.returns, results, strict=True):
            if isinstance(tensor, Tensor) and returned.alias_info is None:
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_makes_no_logits_and_no_copy_of_the_weight(dtype: torch.dtype) -> None:
    tokens, vocabulary = 1024, 2000
    hidden = torch.randn(tokens, 16, dtype=dtype).requires_grad_()
    weight = torch.randn(vocabulary, 16, dtype=dtype).requires_grad_()
    labels = torch.randint(vocabulary, (tokens,))
    with LargestTensor() as ours:
        norm_head_cross_entropy(hidden, weight, labels).sum().backward()
    assert ours.elements <= 128 * vocabulary  # one chunk
    with LargestTensor() as official:
        plain(hidden, weight, labels).sum().backward()
    assert official.elements == tokens * vocabulary  # the mode does see logits


def test_a_common_factor_needs_no_second_sweep() -> None:
    hidden, weight, labels = inputs(torch.float32)
    counts = []
    for factors in (None, 2 * (labels != -100).float(), randn(TOKENS).float()):
        with LargestTensor() as mode:
            solve_for(norm_head_cross_entropy, hidden, weight, labels, factors)
        counts.append(mode.products)
    assert counts[0] == counts[1] == 3 * 3  # three chunks
    assert counts[2] == 2 * counts[0]


def test_without_gradients_it_only_makes_logits() -> None:
    hidden, weight, labels = inputs(torch.float32)
    with torch.no_grad(), LargestTensor() as mode:
        norm_head_cross_entropy(hidden, weight.requires_grad_(), labels)
    assert mode.products == 3


ROWS = 160
"""Rows a rank: the second of three has 97 true ones, the third nothing but padding."""

CASES: list[dict[str, Any]] = [
    {},
    {"normalise": False, "z_loss_weight": 1e-2},
    {"factors": randn(TOKENS, seed=3)},
]


def _solve_on_a_rank(rank: int, store: str, results: Any) -> None:
    torch.set_num_threads(1)
    cross_entropy._FEWEST_LOGITS = 0  # a fresh process: the fixture has not been here
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    hidden, weight, labels = inputs(torch.float64)
    weight = torch.cat([weight[:257], torch.zeros(3 * ROWS - 257, HIDDEN, dtype=weight.dtype)])
    results[rank] = [
        [
            x.tolist()
            for x in solve_for(
                norm_head_cross_entropy,
                hidden,
                weight[rank * ROWS : (rank + 1) * ROWS],
                labels.clamp(max=256),
                vocab_size=257,
                group=distributed.group.WORLD,
                **case,
            )
        ]
        for case in CASES
    ]
    distributed.destroy_process_group()


def test_ranks_that_share_the_vocabulary_agree_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest names this module by its path from the root, where the ranks have to find it.
    monkeypatch.syspath_prepend(Path(__file__).parents[3])
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_solve_on_a_rank, (str(tmp_path / "store"), results), nprocs=3)
        ranks = [results[rank] for rank in range(3)]
    hidden, weight, labels = inputs(torch.float64)
    for case, *solutions in zip(CASES, *ranks, strict=True):
        want = solve_for(plain, hidden, weight[:257], labels.clamp(max=256), **case)
        rows = []
        for solution in solutions:
            losses, grad_hidden, grad_rows = (
                torch.tensor(x, dtype=want[0].dtype) for x in solution
            )
            assert max(error([losses, grad_hidden], want[:2])) < 1e-13
            rows.append(grad_rows)
        grad_weight = torch.cat(rows)
        assert max(error([grad_weight[:257]], want[2:])) < 1e-13
        assert grad_weight[257:].count_nonzero() == 0
