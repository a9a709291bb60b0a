"""The documentation of Python's standard library, read from its source files.

Nothing is imported or executed: the files are parsed, and the docstrings of public modules,
classes, functions and methods are collected in the order in which they are written.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# Neither the interpreter's own tests nor what is installed beside it.
_SKIPPED_FOLDERS = {
    "__pycache__",
    "_bundled",
    "dist-packages",
    "idle_test",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
}
# Public modules whose documentation stands in their pure Python twin.
_PUBLIC_NAMES = {"_pydatetime": "datetime", "_pydecimal": "decimal", "_pyio": "io"}


@dataclass(frozen=True)
class Entry:
    """One documented thing.

    Attributes:
        name: Its dotted name, such as ``json.JSONEncoder.encode``, or a topic of ``help()``.
        subject: What a conversation about it is about: the module of a function, the class of a
            method, and everything else itself.
        kind: ``module``, ``class``, ``function``, ``method`` or ``topic``.
        signature: How to call it, such as ``json.dumps(obj, *, indent=None)``; else empty.
        text: Its documentation, dedented and without blank ends.
    """

    name: str
    subject: str
    kind: str
    signature: str
    text: str


def read_entries(root: Path | None = None) -> Iterator[Entry]:
    """Yields what a standard library documents: modules by path, then the topics of ``help()``.

    The order depends on the files alone, so the same Python gives the same entries.

    Args:
        root: The folder of the library; None for that of the running interpreter.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = _module_name(path.relative_to(root))
        if name is not None:
            yield from _module_entries(name, path)
    yield from _topics(root / "pydoc_data" / "topics.py")


def _module_name(path: Path) -> str | None:
    """Returns the dotted name of a public module, None for a file to leave out."""
    parts = list(path.with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    if not parts or _SKIPPED_FOLDERS.intersection(parts):
        return None
    parts[0] = _PUBLIC_NAMES.get(parts[0], parts[0])
    if any(part.startswith("_") or not part.isidentifier() for part in parts):
        return None
    return ".".join(parts)


def _module_entries(name: str, path: Path) -> Iterator[Entry]:
    tree = _parse(path)
    if tree is None:
        return
    text = (ast.get_docstring(tree) or "").strip()
    if text:
        yield Entry(name, subject=name, kind="module", signature="", text=text)
    yield from _definitions(tree, name, function="function")


def _definitions(node: ast.Module | ast.ClassDef, subject: str, function: str) -> Iterator[Entry]:
    """Yields the public classes and functions of a module or class, those of its classes too."""
    for child in node.body:
        if not isinstance(child, Definition) or child.name.startswith("_"):
            continue
        name = f"{subject}.{child.name}"
        text = (ast.get_docstring(child) or "").strip()
        if isinstance(child, ast.ClassDef):
            if text:
                yield Entry(name, name, "class", f"{name}({_constructor(child)})", text)
            yield from _definitions(child, name, function="method")
        elif text:
            parameters = ast.unparse(child.args)
            if function == "method":
                parameters = _without_receiver(parameters)
            yield Entry(name, subject, function, f"{name}({parameters})", text)


def _constructor(node: ast.ClassDef) -> str:
    """Returns the parameters that a class is called with, as far as it defines them itself."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return _without_receiver(ast.unparse(child.args))
    return ""


def _without_receiver(parameters: str) -> str:
    return re.sub(r"^(self|cls)\b(, /)?(, )?", "", parameters)


def _topics(path: Path) -> Iterator[Entry]:
    """Yields the topics of ``help()``: one dictionary literal of name to reference text."""
    tree = _parse(path) if path.is_file() else None
    for node in tree.body if tree else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for topic, text in ast.literal_eval(node.value).items():
                yield Entry(topic, subject=topic, kind="topic", signature="", text=text.strip())


def _parse(path: Path) -> ast.Module | None:
    """Parses a file; None where it is no Python of this version, as templates are not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return None
