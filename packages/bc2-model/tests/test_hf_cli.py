"""The command `bc2-model generate`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the extra `hf` is not installed")

import sentencepiece
import torch

from bc2_model.cli import main
from bc2_model.hf import BaichuanForCausalLM
from bc2_model.hf.generation import Sampling

GREEDY = ["--temperature", "0", "--max-new-tokens", "12"]


def test_prints_the_greedy_continuation(
    model_directory: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(model_directory), "--prompt", "the sea", *GREEDY]) == 0
    printed = capsys.readouterr().out

    processor = sentencepiece.SentencePieceProcessor(str(vocabulary))
    model = BaichuanForCausalLM.from_pretrained(model_directory)
    tokens = torch.tensor([processor.encode("the sea")])
    prompt = tokens.shape[1]
    with torch.no_grad():
        for _ in range(12):
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], dim=1)
    assert printed == processor.decode(tokens[0, prompt:].tolist()) + "\n"


def test_sampling_follows_the_seed(
    model_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sample(seed: str) -> str:
        options = ["--temperature", "2", "--top-k", "100", "--max-new-tokens", "20"]
        assert (
            main(["generate", str(model_directory), "--prompt", "a", *options, "--seed", seed]) == 0
        )
        return capsys.readouterr().out

    assert sample("1") == sample("1")
    assert sample("1") != sample("2")


def test_what_is_left_out_the_checkpoint_decides() -> None:
    assert Sampling(max_new_tokens=5).options() == {"max_new_tokens": 5}
    warm = Sampling(max_new_tokens=5, temperature=0.3, top_p=0.85).options()
    assert warm == {"max_new_tokens": 5, "temperature": 0.3, "top_p": 0.85, "do_sample": True}
    cold = Sampling(max_new_tokens=5, temperature=0.0, repetition_penalty=1.1).options()
    assert cold["do_sample"] is False
    assert cold["repetition_penalty"] == 1.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", ""], "error: the prompt is empty"),
        (["--prompt", "a", "--top-p", "0"], "0 is not positive"),
        (["--prompt", "a", "--max-new-tokens", "0"], "0 is not at least 1"),
        (["--prompt", "a", "--temperature", "warm"], "invalid float value: 'warm'"),
    ],
)
def test_what_the_user_can_mend_has_status_2(
    model_directory: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["generate", str(model_directory), *arguments])
    except SystemExit as exit_:
        status = exit_.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_a_directory_that_holds_no_model(
    model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(tmp_path), "--prompt", "a"]) == 2
    assert "holds no tokenizer.model" in capsys.readouterr().err
    shutil.copy(model_directory / "tokenizer.model", tmp_path)
    assert main(["generate", str(tmp_path), "--prompt", "a"]) == 2
    assert "no model config" in capsys.readouterr().err
    shutil.copy(model_directory / "config.json", tmp_path)
    assert main(["generate", str(tmp_path), "--prompt", "a"]) == 2
    assert "bc2-ckpt convert" in capsys.readouterr().err


def test_a_missing_library_is_named_with_its_extra(
    model_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["generate", str(model_directory), "--prompt", "a"]) == 2
    assert "pip install 'bc2-model[hf]'" in capsys.readouterr().err


def test_help_loads_neither_torch_nor_transformers() -> None:
    script = (
        "import sys; from bc2_model.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
