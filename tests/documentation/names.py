"""What pages may name: modules and attributes of bc2, files, sessions, options, keys of a run."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bc2_train.config import RunConfig
from documentation.pages import ROOT

PACKAGES = {name: f"packages/{name}" for name in ("bc2-data", "bc2-ckpt", "bc2-model", "bc2-train")}
SOURCES = [ROOT / folder / "src" for folder in PACKAGES.values()]

_OPTION = re.compile(r"""["'](--[a-z][\w-]*)["']""")


def find_name(dotted: str) -> bool:
    """Returns whether ``bc2_x.module.Attribute`` exists, by reading, not importing.

    An attribute counts if its module defines or imports it; of what is below a class or function,
    the name must occur there.
    """
    parts = dotted.removesuffix("()").split(".")
    for source in SOURCES:
        for known in range(len(parts), 0, -1):
            base = source.joinpath(*parts[:known])
            module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
            if module.is_file():
                return all(name in _defined(module) for name in parts[known:])
    return False


@cache
def _defined(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def missing_imports(code: str) -> Iterator[tuple[int, str]]:
    """Yields line and name of what a Python block imports of bc2 and there is not."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bc2_"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("bc2_")]
        else:
            continue
        yield from ((node.lineno, name) for name in names if not find_name(name))


@cache
def keys_of_a_run(cls: type = RunConfig, prefix: str = "") -> set[str]:
    """Returns every key that ``--set`` knows, groups included."""
    hints = typing.get_type_hints(cls)
    keys = set()
    for field in dataclasses.fields(cls):
        key = prefix + field.name.rstrip("_")
        keys.add(key)
        for option in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(option):
                keys |= keys_of_a_run(typing.cast(type, option), f"{key}.")
    return keys


@cache
def sessions() -> set[str]:
    """Returns the names of nox's sessions."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    named = {function.name for function in functions if function.decorator_list}
    return named | {f"isolated_{name.removeprefix('bc2-')}" for name in PACKAGES}


@cache
def extras() -> dict[str, set[str]]:
    """Returns the extras of each package."""
    found = {}
    for name, folder in PACKAGES.items():
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        found[name] = set(project.get("optional-dependencies", {}))
    return found


@cache
def options_of_scripts() -> set[str]:
    """Returns the options of tools, sessions and tests, as their sources name them."""
    files = [ROOT / "noxfile.py", *ROOT.glob("tools/**/*.py"), *ROOT.glob("tests/**/conftest.py")]
    return {option for file in files for option in _OPTION.findall(file.read_text())}


@cache
def files_by_name() -> dict[str, list[Path]]:
    """Returns where files of each name are."""
    found: dict[str, list[Path]] = {}
    for top in ("docs", "examples", "packages", "tests", "tools"):
        for path in (ROOT / top).rglob("*.*"):
            found.setdefault(path.name, []).append(path)
    return found
