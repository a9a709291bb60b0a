"""lm-evaluation-harness evaluates an export on a task that lies on this disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bc2_data.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from clients.conftest import Standin

pytest.importorskip("lm_eval", reason="lm_eval is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed (pip install 'lm_eval[hf]')")

ROWS: list[dict[str, Any]] = [
    {"question": "Where is Berlin?", "choices": ["Germany", "the lazy dog", "公园"], "answer": 0},
    {"question": "Who sleeps?", "choices": ["the dog", "the fox", "a + b"], "answer": 0},
    {"question": "北京是什么？", "choices": ["首都", "公园"], "answer": 1},  # noqa: RUF001
]
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: "\\n"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def test_log_likelihoods_and_accuracy_are_those_of_the_reference(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from bc2_model.hf import register

    register()
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/bc2.yaml").write_text(TASK.format(name="bc2_small", data=data))
    tasks = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    model = HFLM(pretrained=str(standin.export), device="cpu", dtype="float32", batch_size=1)
    results = lm_eval.simple_evaluate(
        model=model, tasks=["bc2_small"], task_manager=tasks, log_samples=True, bootstrap_iters=0
    )

    right = 0
    samples = sorted(results["samples"]["bc2_small"], key=lambda sample: sample["doc_id"])
    assert len(samples) == len(ROWS)
    for row, sample in zip(ROWS, samples, strict=True):
        question, choices = row["question"], row["choices"]
        expected = [log_likelihood(standin, question, f"\n{choice}") for choice in choices]
        found = [float(response[0]) for response in sample["filtered_resps"]]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-3)
        right += max(range(len(expected)), key=expected.__getitem__) == row["answer"]
    assert results["results"]["bc2_small"]["acc,none"] == pytest.approx(right / len(ROWS))


def log_likelihood(standin: Standin, context: str, continuation: str) -> float:
    """Sums over the continuation's tokens, which lm_eval finds by encoding both together."""
    tokenizer = load_tokenizer(standin.export, special_tokens="allow", engine="sentencepiece")
    whole, first = tokenizer.encode([context + continuation, context])
    tokens = torch.from_numpy(whole.astype("int64"))[None]
    with torch.no_grad():
        logits = standin.reference.logits(tokens)[0].log_softmax(-1)
    start = len(first)
    return sum(logits[i - 1, tokens[0, i]].item() for i in range(start, len(whole)))
