"""The transformers model: generation, saving, loading, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the extra `hf` is not installed")

import torch
from transformers import AutoConfig, AutoModelForCausalLM, StaticCache

from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_ckpt.errors import CkptError
from bc2_model.errors import ModelError
from bc2_model.hf import BaichuanConfig, BaichuanForCausalLM, register
from bc2_model.hf.loading import load_model

VOCAB = 97
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 40,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "torch_dtype": "float32",
}


def tiny_config(position: str, **values: Any) -> BaichuanConfig:
    return BaichuanConfig(**TINY, position_embedding=position, **values)


@pytest.fixture(params=["rotary", "alibi"])
def model(request: pytest.FixtureRequest) -> BaichuanForCausalLM:
    torch.manual_seed(0)
    model = BaichuanForCausalLM(tiny_config(request.param, initializer_range=0.3))
    return model.eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(3, VOCAB, shape, generator=torch.Generator().manual_seed(1))


class TestGeneration:
    @pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
    def test_the_cache_changes_nothing(
        self, model: BaichuanForCausalLM, options: dict[str, int]
    ) -> None:
        prompt = tokens(2, 7)
        outputs = [
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=None,
                use_cache=use_cache,
                **options,
            )
            for use_cache in (True, False)
        ]
        assert outputs[0].shape == (2, 27)
        assert torch.equal(*outputs)

    def test_a_left_padded_row_is_continued_like_a_single_one(
        self, model: BaichuanForCausalLM
    ) -> None:
        options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
        batch, mask = tokens(2, 9), torch.ones(2, 9, dtype=torch.long)
        batch[1, :4], mask[1, :4] = 0, 0
        outputs = model.generate(batch, attention_mask=mask, **options)
        short = batch[1:, 4:]
        single = model.generate(short, attention_mask=torch.ones_like(short), **options)
        assert torch.equal(outputs[1:, 4:], single)

    def test_chunks_through_the_cache_give_the_logits_of_the_whole(
        self, model: BaichuanForCausalLM
    ) -> None:
        row = tokens(1, 12)
        whole = model(row).logits
        first = model(row[:, :5])
        second = model(row[:, 5:], past_key_values=first.past_key_values)
        chunks = torch.cat([first.logits, second.logits], dim=1)
        torch.testing.assert_close(chunks, whole, atol=1e-5, rtol=0)

    def test_sampling_follows_the_seed(self, model: BaichuanForCausalLM) -> None:
        def sample(seed: int) -> list[int]:
            torch.manual_seed(seed)
            prompt = tokens(1, 5)
            output = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=20,
                do_sample=True,
                temperature=1.5,
                top_k=50,
            )
            return output[0].tolist()

        assert sample(1) == sample(1)
        assert sample(1) != sample(2)


class TestTraining:
    def test_labels_are_shifted_once_and_ignored_where_negative(
        self, model: BaichuanForCausalLM
    ) -> None:
        row = tokens(1, 6)
        labels = row.clone()
        labels[0, 3] = -100
        loss = model(row, labels=labels).loss
        log_probabilities = model(row).logits.log_softmax(-1)[0]
        terms = [-log_probabilities[i, row[0, i + 1]] for i in range(5) if i + 1 != 3]
        torch.testing.assert_close(loss, torch.stack(terms).mean())

    def test_gradient_checkpointing_gives_the_same_gradients(
        self, model: BaichuanForCausalLM
    ) -> None:
        row = tokens(2, 10)
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        model.train()
        model.model.layers[0].mlp.register_forward_pre_hook(count)
        model(row, labels=row).loss.backward()
        expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
        assert calls == 1

        model.zero_grad()
        model.gradient_checkpointing_enable()
        model(row, labels=row).loss.backward()
        assert calls == 3, "the layer did not run again in the backward pass"
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight.grad, expected[name])

    def test_half_precision_stays_near_float32(self, model: BaichuanForCausalLM) -> None:
        row = tokens(2, 16)
        expected = model(row).logits
        logits = model.to(torch.bfloat16)(row).logits
        assert logits.dtype == torch.bfloat16
        assert (logits.float() - expected).norm() / expected.norm() < 0.03

    def test_hidden_states_are_those_between_the_layers(self, model: BaichuanForCausalLM) -> None:
        row = tokens(1, 6)
        output = model(row, output_hidden_states=True)
        assert len(output.hidden_states) == 3
        assert torch.equal(output.hidden_states[0], model.model.embed_tokens(row))
        assert torch.equal(model.lm_head(output.hidden_states[-1]), output.logits)


class TestDocuments:
    def test_a_document_is_not_seen_from_another(self, model: BaichuanForCausalLM) -> None:
        row = tokens(1, 12)
        ids = torch.tensor([[1] * 5 + [2] * 7])
        packed = model(row, attention_mask=ids).logits
        torch.testing.assert_close(packed[:, 5:], model(row[:, 5:]).logits, atol=1e-5, rtol=0)
        assert not torch.allclose(packed[:, 5:], model(row).logits[:, 5:], atol=1e-3)

    def test_documents_are_refused_with_a_cache(self, model: BaichuanForCausalLM) -> None:
        row = tokens(1, 6)
        past = model(row).past_key_values
        with pytest.raises(ModelError, match="do not go together"):
            model(
                row[:, :1],
                attention_mask=torch.tensor([[1, 1, 1, 2, 2, 2, 2]]),
                past_key_values=past,
            )


class TestSaving:
    @pytest.mark.parametrize(("max_shard_size", "files"), [("5GB", 1), ("40KB", 5)])
    def test_round_trip_is_bit_equal(
        self, model: BaichuanForCausalLM, tmp_path: Path, max_shard_size: str, files: int
    ) -> None:
        model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
        assert len(list(tmp_path.glob("*.safetensors"))) == files
        loaded = load_model(tmp_path)
        expected = model.state_dict()
        assert loaded.state_dict().keys() == expected.keys()
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        assert torch.equal(loaded(tokens(1, 9)).logits, model(tokens(1, 9)).logits)
        assert loaded.config.model == model.config.model

    def test_the_stored_head_is_never_normalised(
        self, model: BaichuanForCausalLM, tmp_path: Path
    ) -> None:
        before = model.lm_head.weight.detach().clone()
        row = tokens(1, 5)
        model.train()(row)
        model.eval()(row)
        model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=3)
        model.save_pretrained(tmp_path)
        assert torch.equal(load_model(tmp_path).lm_head.weight, before)

    def test_logits_depend_on_the_direction_of_the_head_alone(
        self, model: BaichuanForCausalLM
    ) -> None:
        expected = model(tokens(1, 5)).logits
        with torch.no_grad():
            model.lm_head.weight.mul_(torch.rand(VOCAB, 1) * 3 + 0.5)
        torch.testing.assert_close(model(tokens(1, 5)).logits, expected, atol=1e-5, rtol=1e-5)


def publish(directory: Path, model: BaichuanForCausalLM) -> Path:
    """Writes a directory like an official one: `.bin` shards and a config that names code."""
    directory.mkdir()
    rotary = model.config.position_embedding == "rotary"
    config = TINY | {"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"]}
    config |= {"max_position_embeddings": 4096} if rotary else {"model_max_length": 4096}
    config["auto_map"] = {
        "AutoConfig": "configuration_baichuan.BaichuanConfig",
        "AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM",
    }
    (directory / "config.json").write_text(json.dumps(config))
    for module in ("configuration", "modeling"):
        (directory / f"{module}_baichuan.py").write_text("raise SystemExit('remote code ran')")
    weights = model.state_dict()
    names = sorted(weights)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2]}
    shards["pytorch_model-00002-of-00002.bin"] = names[1::2]
    for file, part in shards.items():
        torch.save({name: weights[name] for name in part}, directory / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return directory


class TestOfficialDirectories:
    def test_loads_without_remote_code(self, model: BaichuanForCausalLM, tmp_path: Path) -> None:
        directory = publish(tmp_path / "official", model)
        register()
        register()
        assert type(AutoConfig.from_pretrained(directory)) is BaichuanConfig
        loaded = AutoModelForCausalLM.from_pretrained(directory)
        assert type(loaded) is BaichuanForCausalLM
        assert torch.equal(loaded.eval()(tokens(1, 9)).logits, model(tokens(1, 9)).logits)

        loaded.save_pretrained(tmp_path / "saved")
        assert "auto_map" not in json.loads((tmp_path / "saved" / "config.json").read_text())
        assert not list((tmp_path / "saved").glob("*.py"))

    def test_a_pickle_that_is_no_weights_is_not_run(
        self, model: BaichuanForCausalLM, tmp_path: Path
    ) -> None:
        directory = publish(tmp_path / "official", model)
        touched = tmp_path / "touched"
        torch.save({"model.norm.weight": _Touch(touched)}, next(directory.glob("*-00002.bin")))
        with pytest.raises(ModelError, match="Weights only load failed"):
            load_model(directory)
        assert not touched.exists()

    def test_a_missing_tensor_is_an_error(self, model: BaichuanForCausalLM, tmp_path: Path) -> None:
        directory = publish(tmp_path / "official", model)
        shard = directory / "pytorch_model-00001-of-00002.bin"
        weights = torch.load(shard, weights_only=True)
        del weights["lm_head.weight"]
        torch.save(weights, shard)
        with pytest.raises(ModelError, match=r"missing tensor lm_head\.weight"):
            load_model(directory)

    def test_a_directory_without_weights_is_an_error(
        self, model: BaichuanForCausalLM, tmp_path: Path
    ) -> None:
        model.config.save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="holds no weights"):
            load_model(tmp_path)

    def test_a_cut_file_is_an_error(self, model: BaichuanForCausalLM, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(ModelError, match="cannot be read"):
            load_model(tmp_path)


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestConfig:
    def test_the_position_embedding_follows_from_the_published_keys(self) -> None:
        assert BaichuanConfig(**TINY).position_embedding == "alibi"
        assert BaichuanConfig(**TINY, max_position_embeddings=64).position_embedding == "rotary"
        both = BaichuanConfig(**TINY, max_position_embeddings=64, position_embedding="alibi")
        assert both.position_embedding == "alibi"

    @pytest.mark.parametrize("preset", PRESETS)
    def test_what_is_saved_is_read_back(self, preset: str, tmp_path: Path) -> None:
        config = BaichuanConfig(**PRESETS[preset].to_hf())
        config.save_pretrained(tmp_path)
        assert ModelConfig.load(tmp_path) == PRESETS[preset]
        assert BaichuanConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()

    def test_a_missing_dimension_is_an_error(self) -> None:
        with pytest.raises(CkptError, match="'vocab_size' is missing"):
            BaichuanConfig(hidden_size=40)

    def test_its_parameters_are_those_that_the_dimensions_promise(
        self, model: BaichuanForCausalLM
    ) -> None:
        assert model.num_parameters() == model.config.model.num_parameters


class TestRefusals:
    def test_a_mask_of_another_length(self, model: BaichuanForCausalLM) -> None:
        with pytest.raises(ModelError, match=r"shape \(1, 5\), not \(1, 6\)"):
            model(tokens(1, 6), attention_mask=torch.ones(1, 5))

    def test_no_input_at_all(self, model: BaichuanForCausalLM) -> None:
        with pytest.raises(ModelError, match="either input_ids or inputs_embeds"):
            model()

    def test_a_cache_of_fixed_size(self, model: BaichuanForCausalLM) -> None:
        with pytest.raises(ModelError, match="fixed size"):
            model(tokens(1, 6), past_key_values=StaticCache(model.config, max_cache_len=16))
