"""Handlers that another distribution brings along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bc2_data.errors import DataError
from bc2_data.handlers import HANDLERS, handler_names
from bc2_data.indexed import IndexedDataset
from bc2_data.tokenizer import Tokenizer, load_tokenizer

MODULE = '''
from bc2_data.handlers.base import Text, Unusable, eos_at_end, text_field


class Reversed:
    """The text of field "t", backwards."""

    kind = "pretrain"
    columns = ("t",)

    def __init__(self, end):
        self._end = end

    @classmethod
    def create(cls, options, special):
        options.refuse("text_key", "reversed")
        return cls(eos_at_end(options.append_eos, special))

    def render(self, fields):
        text = text_field(fields, "t")
        if not text:
            raise Unusable("no_text", "'t' is empty")
        return [Text(text[::-1], trained=True), *self._end]
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with one module and its entry points on the path."""

    def run(name: str, module: str, **handlers: str) -> None:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{handler.replace('_', '-')} = {value}" for handler, value in handlers.items()]
        (info / "entry_points.txt").write_text("\n".join(["[bc2_data.handlers]", *lines]))
        (site / f"{name}.py").write_text(module)
        monkeypatch.syspath_prepend(str(site))

    return run


@pytest.fixture
def tiny(tokenizer_dir: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_dir)


def test_a_handler_of_another_distribution(
    install: Install, cli: Any, write_rows: Any, tokenizer_dir: Path, tmp_path: Path
) -> None:
    install("reversing", MODULE, my_reversed="reversing:Reversed.create")
    assert handler_names() == (*HANDLERS, "my-reversed")
    path = write_rows("a.jsonl", [{"t": "abc"}, {"t": ""}, {"t": "the dog"}])
    outcome = cli(
        *("tokenize", "--input", path, "--tokenizer", tokenizer_dir, "--append-eos"),
        *("--output-prefix", tmp_path / "out" / "data", "--handler", "my-reversed"),
    )
    assert outcome.status == 0, outcome.err
    assert "dropped 1 rows (no_text)" in outcome.out
    expected = load_tokenizer(tokenizer_dir).encode(["cba", "god eht"])
    dataset = IndexedDataset(tmp_path / "out" / "data_text_document")
    assert [ids.tolist() for ids in dataset] == [[*ids, 2] for ids in expected]


def test_unknown_names_fail_with_the_nearest_of_all(
    install: Install, cli: Any, encode_rows: Any, tiny: Tokenizer
) -> None:
    with pytest.raises(DataError, match="unknown handler 'reverse'") as caught:
        encode_rows(tiny, "reverse", [])
    assert caught.value.hint == f"known: {', '.join(sorted(HANDLERS))}"
    install("reversing", MODULE, reversed="reversing:Reversed.create")
    with pytest.raises(DataError, match="unknown handler 'reverse'") as caught:
        encode_rows(tiny, "reverse", [])
    assert caught.value.hint == "did you mean 'reversed'?"
    arguments = ("tokenize", "--input", "a", "--tokenizer", "b", "--output-prefix", "c")
    outcome = cli(*arguments, "--handler", "reverse")
    assert outcome.status == 2
    assert "unknown name 'reverse'; did you mean 'reversed'?" in outcome.err


def test_our_own_names_cannot_be_taken(install: Install, encode_rows: Any, tiny: Tokenizer) -> None:
    install("reversing", MODULE, text="reversing:Reversed.create")
    assert handler_names() == HANDLERS
    (document,) = encode_rows(tiny, "text", [{"text": "abc"}]).documents
    assert tiny.decode(document.ids) == "abc"


def test_two_distributions_with_one_name(
    install: Install, encode_rows: Any, tiny: Tokenizer
) -> None:
    install("reversing", MODULE, reversed="reversing:Reversed.create")
    install("turning", MODULE, reversed="turning:Reversed.create")
    with pytest.raises(DataError, match="several distributions bring a handler 'reversed'") as it:
        encode_rows(tiny, "reversed", [])
    assert "reversing (reversing:Reversed.create)" in it.value.message
    assert "turning (turning:Reversed.create)" in it.value.message


@pytest.mark.parametrize(
    ("module", "value"),
    [
        ("import no_such_module", "broken:Handler"),
        ("raise RuntimeError('no luck')", "broken:Handler"),
        ("x = 1", "broken:Handler"),
        ("x = 1", "missing:Handler"),
    ],
)
def test_a_handler_that_cannot_be_loaded(
    install: Install, encode_rows: Any, tiny: Tokenizer, module: str, value: str
) -> None:
    install("broken", module, broken=value)
    with pytest.raises(DataError, match=r"handler 'broken' of broken .* cannot be loaded") as it:
        encode_rows(tiny, "broken", [])
    assert it.value.hint == "mend or reinstall that distribution"
