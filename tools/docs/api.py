"""Writes docs/api.md from the docstrings of what other projects may import.

python tools/docs/api.py            # writes it
python tools/docs/api.py --check    # fails where it is not up to date
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
PUBLIC = {
    "bc2_data": ["train_tokenizer"],
    "bc2_data.pipeline": ["TokenizeConfig", "tokenize"],
    "bc2_data.packing": ["pack"],
    "bc2_data.merging": ["merge"],
    "bc2_data.verification": ["verify"],
    "bc2_data.tokenizer": ["load_tokenizer"],
    "bc2_data.indexed": ["IndexedDataset", "IndexedWriter"],
    "bc2_ckpt.config": ["ModelConfig"],
    "bc2_ckpt.checkpoint": ["open_checkpoint"],
    "bc2_ckpt.convert": ["convert"],
    "bc2_ckpt.layout": ["ParameterLayout"],
    "bc2_model.kernels": [
        "attention",
        "alibi_slopes",
        "norm_head_cross_entropy",
        "norm_head_logits",
        "rms_norm",
        "swiglu",
        "rotary",
        "rotary_tables",
    ],
    "bc2_model.hf": ["register", "BaichuanForCausalLM", "BaichuanTokenizer"],
    "bc2_model.megatron": ["Baichuan2Model", "Baichuan2TransformerConfig", "load_weights"],
    "bc2_train.config": ["RunConfig", "load"],
}
_HEAD = """\
# From Python

What other projects may import. Written by `python tools/docs/api.py` from the docstrings, which say
more of the classes; a test holds the two together.
"""
_FIELD = re.compile(r"^    (\*{0,2}\w+(?: \([^)]*\))?): ")


def page() -> str:
    """Returns the whole page."""
    parts = [_HEAD]
    for module, names in PUBLIC.items():
        parts.append(f"\n## {module}\n")
        parts += [_entry(module, name) for name in names]
    return "".join(parts)


def _entry(module: str, name: str) -> str:
    value = getattr(import_module(module), name)
    lines = inspect.getdoc(value)
    assert lines, f"{module}.{name} has no docstring"
    return f"\n### {name}\n\n```text\n{_signature(value, name)}\n```\n\n{_markdown(lines)}\n"


def _signature(value: Any, name: str) -> str:
    """Returns a call with every argument, a line each where there are many."""
    if isinstance(value, type) and value.__init__ is object.__init__:
        return name
    arguments = []
    star = False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            arguments.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        text = prefix.get(parameter.kind, "") + parameter.name
        if parameter.default is not parameter.empty:
            text += "=..." if "<" in repr(parameter.default) else f"={parameter.default!r}"
        arguments.append(text)
    short = f"{name}({', '.join(arguments)})"
    if len(short) <= 90:
        return short
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def _markdown(docstring: str) -> str:
    return "\n".join(_lines(docstring)).strip()


def _lines(docstring: str) -> Iterator[str]:
    """Yields the lines of a Google-style docstring with its sections as lists."""
    inside = False
    for line in docstring.splitlines():
        if re.match(r"^(Args|Attributes|Returns|Raises|Yields):$", line):
            inside = True
            yield f"*{line[:-1]}*"
            yield ""
            continue
        if line and not line.startswith(" "):
            inside = False
        field = _FIELD.match(line) if inside else None
        if field:
            yield f"- `{field[1]}`: {line[field.end() :]}"
        else:
            yield f"  {line.strip()}" if inside and line else line.strip()


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, but compare")
    args = parser.parse_args()
    if not args.check:
        PAGE.write_text(page())
        return 0
    if PAGE.read_text() == page():
        return 0
    print("docs/api.md is not up to date: python tools/docs/api.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
