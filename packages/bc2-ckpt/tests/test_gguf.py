"""What llama.cpp gets: read by gguf's own reader, it is the source, folded and rearranged."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bc2_ckpt import blocks
from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import ModelConfig, PositionEmbedding
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import CkptError, MismatchError, WrittenOnlyError
from bc2_ckpt.filters.base import Filter
from bc2_ckpt.filters.norm_head import FoldedNormHead
from bc2_ckpt.formats.gguf import support
from bc2_ckpt.layout import ParameterLayout
from bc2_data import train_tokenizer
from bc2_data.errors import Bc2Error

gguf = pytest.importorskip("gguf", reason="gguf is not installed (pip install 'bc2-ckpt[gguf]')")

PIECES, ROWS = 500, 509
LAYERS = {"rotary": 32, "alibi": 40}
BY_TYPE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TEXT = "the quick brown fox jumps over the lazy dog\n北京是中国的首都\n"


@pytest.fixture
def config(position_embedding: PositionEmbedding) -> ModelConfig:
    heads = {"rotary": 2, "alibi": 3}[position_embedding]
    return ModelConfig(
        vocab_size=ROWS,
        hidden_size=8 * heads,
        intermediate_size=18,
        num_layers=LAYERS[position_embedding],
        num_heads=heads,
        position_embedding=position_embedding,
        rms_norm_eps=3e-6,
        rope_theta=20_000.0,
        max_sequence_length=77,
    )


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([TEXT], directory, vocab_size=PIECES)
    return directory / "tokenizer.model"


@pytest.fixture
def hf(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tokenizer: Path,
) -> Path:
    directory = build_bin(config, tensors)
    shutil.copyfile(tokenizer, directory / "tokenizer.model")
    return directory


def command(hf: Path, output: Path, *flags: str) -> list[str]:
    return ["convert", "--input", str(hf), "--output", str(output), "--to", "gguf", *flags]


def written(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns tensors and metadata as the gguf package reads them."""
    reader = gguf.GGUFReader(directory / "model.gguf")
    tensors = {}
    for entry in reader.tensors:
        dtype = BY_TYPE[entry.tensor_type.name]
        shape = [int(size) for size in reversed(entry.shape)]
        tensors[entry.name] = torch.frombuffer(bytearray(entry.data.tobytes()), dtype=dtype)
        tensors[entry.name] = tensors[entry.name].view(shape)
    return tensors, {name: field.contents() for name, field in reader.fields.items()}


def paired(rows: Tensor, head_dim: int) -> Tensor:
    """Row by row: llama.cpp turns 2j with 2j + 1, Hugging Face j with j + half."""
    out, half = torch.empty_like(rows), head_dim // 2
    for first in range(0, len(rows), head_dim):
        for j in range(half):
            out[first + 2 * j] = rows[first + j]
            out[first + 2 * j + 1] = rows[first + half + j]
    return out


def expected(config: ModelConfig, source: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the file, in the dtype that the computation of it has."""
    head = source["lm_head.weight"].float()
    tensors = {
        "token_embd.weight": source["model.embed_tokens.weight"],
        "output_norm.weight": source["model.norm.weight"],
        "output.weight": head / head.norm(dim=1, keepdim=True),
    }
    for i in range(config.num_layers):
        layer, block = f"model.layers.{i}", f"blk.{i}"
        q, k, v = source[f"{layer}.self_attn.W_pack.weight"].chunk(3)
        if config.position_embedding == "rotary":
            q, k = paired(q, config.head_dim), paired(k, config.head_dim)
        tensors |= {f"{block}.attn_q.weight": q, f"{block}.attn_k.weight": k}
        tensors |= {f"{block}.attn_v.weight": v}
        for ours, theirs in (
            ("input_layernorm", "attn_norm"),
            ("self_attn.o_proj", "attn_output"),
            ("post_attention_layernorm", "ffn_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ):
            tensors[f"{block}.{theirs}.weight"] = source[f"{layer}.{ours}.weight"]
    return tensors


@pytest.mark.parametrize("dtype", ["keep", "float32", "bfloat16", "float16"])
def test_every_tensor_is_the_source_folded_and_in_the_order_of_llama_cpp(
    hf: Path, config: ModelConfig, tensors: dict[str, Tensor], tmp_path: Path, dtype: str
) -> None:
    assert main(command(hf, tmp_path / "out", "--dtype", dtype)) == 0
    found, _ = written(tmp_path / "out")
    want = expected(config, tensors)
    assert found.keys() == want.keys()
    kind = torch.bfloat16 if dtype == "keep" else getattr(torch, dtype)
    for name, tensor in want.items():
        assert found[name].dtype == (torch.float32 if tensor.ndim == 1 else kind), name
        if name == "output.weight":  # the length of a row may be summed in another order
            torch.testing.assert_close(found[name], tensor.to(kind), rtol=1e-2, atol=1e-6)
            assert (found[name].float().norm(dim=1) - 1).abs().max() < 2**-7
        else:
            assert torch.equal(found[name], tensor.to(found[name].dtype)), name


def test_norms_of_float32_keep_all_their_bits_when_matrices_are_rounded(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tokenizer: Path,
    tmp_path: Path,
) -> None:
    exact = {name: tensor.float() + 2**-20 for name, tensor in tensors.items()}
    hf = build_bin(config, exact)
    shutil.copyfile(tokenizer, hf / "tokenizer.model")
    assert main(command(hf, tmp_path / "out", "--dtype", "bfloat16")) == 0
    found, _ = written(tmp_path / "out")
    assert torch.equal(found["output_norm.weight"], exact["model.norm.weight"])
    embedding = exact["model.embed_tokens.weight"]
    assert torch.equal(found["token_embd.weight"], embedding.bfloat16())
    head = exact["lm_head.weight"]
    folded = torch.nn.functional.normalize(head).bfloat16()  # rounded once
    assert torch.equal(found["output.weight"], folded)


def test_the_metadata_are_those_of_the_model(
    hf: Path, config: ModelConfig, tmp_path: Path, position_embedding: str
) -> None:
    assert main(command(hf, tmp_path / "out")) == 0
    _, fields = written(tmp_path / "out")
    assert fields["general.architecture"] == "baichuan"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_BF16
    ours = {name: value for name, value in fields.items() if name.startswith("baichuan.")}
    theta = ours.pop("baichuan.rope.freq_base", None)
    turned = ours.pop("baichuan.rope.dimension_count", None)
    rotary = position_embedding == "rotary"
    assert (theta, turned) == ((20_000.0, config.head_dim) if rotary else (None, None))
    assert ours.pop("baichuan.attention.layer_norm_rms_epsilon") == pytest.approx(3e-6)
    assert ours == {
        "baichuan.context_length": 77,
        "baichuan.embedding_length": config.hidden_size,
        "baichuan.block_count": config.num_layers,
        "baichuan.feed_forward_length": 18,
        "baichuan.attention.head_count": config.num_heads,
        "baichuan.attention.head_count_kv": config.num_heads,
    }


def check_tokenizer(fields: dict[str, Any], model: Path, rows: int) -> None:
    """Compares with what the sentencepiece library itself says of every piece."""
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_file=str(model))
    pieces = len(library)
    texts = [library.id_to_piece(i) for i in range(pieces)]
    scores = [library.get_score(i) for i in range(pieces)]
    names = "tokens", "scores", "token_type"
    found = [fields[f"tokenizer.ggml.{name}"] for name in names]
    assert [len(values) for values in found] == [rows] * 3
    assert found[0] == texts + [f"[PAD{i}]" for i in range(rows - pieces)]
    assert found[1][:pieces] == pytest.approx(scores)
    kinds = found[2]
    for i in range(pieces):
        says = {
            gguf.TokenType.UNKNOWN: library.is_unknown(i),
            gguf.TokenType.CONTROL: library.is_control(i),
            gguf.TokenType.BYTE: library.is_byte(i),
            gguf.TokenType.UNUSED: library.is_unused(i),
        }
        if any(says.values()):
            assert says[gguf.TokenType(kinds[i])], texts[i]
        elif texts[i] == "\n" or texts[i].startswith("<reserved_"):
            assert kinds[i] == gguf.TokenType.USER_DEFINED, texts[i]
        else:
            assert kinds[i] in (gguf.TokenType.NORMAL, gguf.TokenType.USER_DEFINED), texts[i]
    assert set(kinds[pieces:]) <= {gguf.TokenType.UNUSED}
    ids = {name: fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown")}
    assert ids == {"bos": 1, "eos": 2, "unknown": 0}
    assert fields["tokenizer.ggml.padding_token_id"] == 0
    flags = ("add_bos_token", "add_eos_token", "add_space_prefix")
    assert [fields[f"tokenizer.ggml.{flag}"] for flag in flags] == [False] * 3
    assert fields["tokenizer.ggml.model"] == "llama"


def test_the_tokenizer_is_the_one_beside_the_weights(
    hf: Path, tmp_path: Path, tokenizer: Path
) -> None:
    assert main(command(hf, tmp_path / "out")) == 0
    check_tokenizer(written(tmp_path / "out")[1], tokenizer, ROWS)


@pytest.mark.parametrize("position_embedding", ["rotary"], indirect=True)
def test_the_official_tokenizer(
    config: ModelConfig, build_bin: Callable[..., Path], shared: Path, tmp_path: Path
) -> None:
    model = shared / "baichuan2/tokenizer.model"
    wide = replace(config, vocab_size=125_696)
    shapes = ParameterLayout(wide).hf_shapes()
    hf = build_bin(wide, {name: torch.ones(shape).bfloat16() for name, shape in shapes.items()})
    shutil.copyfile(model, hf / "tokenizer.model")
    assert main(command(hf, tmp_path / "out")) == 0
    fields = written(tmp_path / "out")[1]
    check_tokenizer(fields, model, 125_696)
    assert fields["tokenizer.ggml.tokens"][195:197] == ["<reserved_106>", "<reserved_107>"]


class Largest(Filter):
    """Remembers the size of the largest read."""

    bytes = 0

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        tensor = super().read(name, rows)
        self.bytes = max(self.bytes, tensor.nbytes)
        return tensor


def test_small_blocks_give_the_same_file(
    hf: Path, config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Largest(FoldedNormHead(open_checkpoint(hf)))
    convert(source, tmp_path / "large", "gguf")
    assert source.bytes == 2 * ROWS * config.hidden_size
    monkeypatch.setattr(blocks, "MAX_BYTES", 100)
    source.bytes = 0
    convert(source, tmp_path / "small", "gguf")
    head = 2 * config.head_dim * config.hidden_size
    assert source.bytes <= (head if config.position_embedding == "rotary" else 100)
    both = [(tmp_path / name / "model.gguf").read_bytes() for name in ("large", "small")]
    assert both[0] == both[1]


def test_the_fold_is_said_and_a_folded_model_stays_as_it_is(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folded = str(tmp_path / "folded")
    arguments = ["convert", "--input", str(hf), "--output", folded, "--to", "hf"]
    assert main([*arguments, "--fold-norm-head"]) == 0
    assert main(command(hf, tmp_path / "one")) == 0
    assert "the output weight is written with rows of length 1: " in capsys.readouterr().err
    assert main(command(Path(folded), tmp_path / "two")) == 0
    assert "length 1" not in capsys.readouterr().err
    one, two = (written(tmp_path / name)[0] for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(command(hf, tmp_path / "out", "--dtype", "float16", "--dry-run")) == 0
    assert f"to       {tmp_path / 'out'} (gguf)" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_it_is_verified_by_its_checksum_and_opened_by_nobody(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(hf, out)) == 0
    with pytest.raises(WrittenOnlyError, match="holds GGUF for llama"):
        open_checkpoint(out)
    assert main(["inspect", str(out)]) == 2
    assert "take the checkpoint that it was made from" in capsys.readouterr().err
    assert main(["verify", str(out)]) == 0
    content = bytearray((out / "model.gguf").read_bytes())
    content[-40] ^= 1
    (out / "model.gguf").write_bytes(content)
    assert main(["verify", str(out)]) == 1
    assert "has SHA-256" in capsys.readouterr().out


def test_a_gguf_file_beside_other_weights_is_in_nobodys_way(hf: Path) -> None:
    (hf / "quantised.gguf").write_bytes(b"GGUF")
    assert open_checkpoint(hf).format == "hf"


@pytest.mark.parametrize("position_embedding", ["rotary"], indirect=True)
class TestBadInput:
    def refused(self, hf: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
        out = hf.parent / "out"
        before = sorted(hf.parent.rglob("*"))
        assert main(command(hf, out, *flags)) == 2
        assert sorted(hf.parent.rglob("*")) == before
        return capsys.readouterr().err

    @pytest.mark.parametrize(("kind", "layers"), [("rotary", 40), ("alibi", 32), ("rotary", 3)])
    def test_a_depth_that_llama_cpp_takes_for_another_model(
        self,
        hf: Path,
        config: ModelConfig,
        kind: PositionEmbedding,
        layers: int,
        build_bin: Callable[..., Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        other = replace(config, num_layers=layers, position_embedding=kind)
        shapes = ParameterLayout(other).hf_shapes()
        directory = build_bin(
            other, {name: torch.ones(shape) for name, shape in shapes.items()}, name="other"
        )
        shutil.copyfile(hf / "tokenizer.model", directory / "tokenizer.model")
        error = self.refused(directory, capsys)
        assert f"has {layers} layers and {kind} positions, which llama.cpp could not run" in error
        assert "hint: --to hf --fold-norm-head" in error

    def test_no_tokenizer(self, hf: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (hf / "tokenizer.model").unlink()
        assert "no tokenizer.model belongs to" in self.refused(hf, capsys)

    def test_a_tokenizer_that_is_none(self, hf: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (hf / "tokenizer.model").write_bytes(b"\x0a\x0e not a real one")
        assert "is no SentencePiece model" in self.refused(hf, capsys)

    def test_a_tokenizer_with_more_pieces_than_rows(
        self, hf: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
    ) -> None:
        directory = tmp_path_factory.mktemp("large")
        train_tokenizer([TEXT + "pack my box with five"], directory, vocab_size=ROWS + 1)
        shutil.copyfile(directory / "tokenizer.model", hf / "tokenizer.model")
        assert f"has {ROWS + 1} pieces, but the model has {ROWS} rows" in self.refused(hf, capsys)

    def test_a_tokenizer_that_changes_text(
        self, hf: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import sentencepiece

        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([TEXT] * 9),
            model_prefix=str(hf / "tokenizer"),
            model_type="bpe",
            vocab_size=330,
            byte_fallback=True,
            minloglevel=2,
        )
        (hf / "tokenizer.vocab").unlink()
        assert "llama.cpp would not give its ids" in self.refused(hf, capsys)

    def test_float64(
        self,
        hf: Path,
        config: ModelConfig,
        tensors: dict[str, Tensor],
        build_bin: Callable[..., Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        wide = build_bin(config, {name: t.double() for name, t in tensors.items()}, name="wide")
        shutil.copyfile(hf / "tokenizer.model", wide / "tokenizer.model")
        assert "is float64, which llama.cpp does not compute with" in self.refused(wide, capsys)
        assert main(command(wide, hf.parent / "narrow", "--dtype", "float32")) == 0

    def test_a_weight_that_overflows_leaves_nothing(
        self,
        hf: Path,
        config: ModelConfig,
        tensors: dict[str, Tensor],
        build_bin: Callable[..., Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        last = f"model.layers.{config.num_layers - 1}.mlp.down_proj.weight"
        tensors[last][-1, -1] = 1e6
        large = build_bin(config, tensors, name="large")
        shutil.copyfile(hf / "tokenizer.model", large / "tokenizer.model")
        assert f"{last} holds" in self.refused(large, capsys, "--dtype", "float16")

    def test_an_output_that_exists(self, hf: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (hf.parent / "out").mkdir()
        (hf.parent / "out/model.gguf").write_bytes(b"mine")
        assert "exists already" in self.refused(hf, capsys)
        assert (hf.parent / "out/model.gguf").read_bytes() == b"mine"

    def test_programs_get_no_norm_head_through(self, hf: Path, tmp_path: Path) -> None:
        with pytest.raises(MismatchError, match="has a NormHead, which llama"):
            convert(open_checkpoint(hf), tmp_path / "out", "gguf")
        convert(FoldedNormHead(open_checkpoint(hf)), tmp_path / "out", "gguf")

    def test_without_the_gguf_package(
        self, hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(support, "find_spec", lambda name: None)
        with pytest.raises(CkptError) as error:
            convert(FoldedNormHead(open_checkpoint(hf)), tmp_path / "out", "gguf")
        assert isinstance(error.value, Bc2Error)
        assert error.value.hint == "pip install 'bc2-ckpt[gguf]'"
        assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("position_embedding", ["alibi"], indirect=True)
def test_killed_at_any_moment_it_leaves_the_whole_file_or_none(hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    begin = time.perf_counter()
    assert main(command(hf, out)) == 0
    seconds = time.perf_counter() - begin
    whole = (out / "model.gguf").read_bytes()
    moments, killed = random.Random(5), 0
    for i in range(8):
        if i % 2:  # else it may replace what stands there
            shutil.rmtree(out, ignore_errors=True)
        child = os.fork()
        if not child:
            status = 1
            try:
                status = main(command(hf, out, "--overwrite"))
            finally:
                os._exit(status)
        time.sleep(moments.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert not out.exists() or (out / "model.gguf").read_bytes() == whole
    assert killed >= 2
    assert main(command(hf, out, "--overwrite")) == 0
    assert (out / "model.gguf").read_bytes() == whole
    assert not list(tmp_path.glob(".*"))
