"""Whether a command on a page would be understood: the real parsers read it, nothing runs."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import re
import runpy
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from unittest import mock

from bc2_data.errors import Bc2Error
from bc2_train.config import load, recipe_names
from documentation import names
from documentation.pages import ROOT
from documentation.shell import ELISION

_PYTEST = {"-q", "-k", "-x", "-s", "-rP", "--log-cli-level"}
_PLACEHOLDER = re.compile(r"^[A-Z][A-Z-]*$")


def mistakes(words: Sequence[str], *, whole: bool) -> Iterator[str]:
    """Yields what is wrong with a command; nothing for programs that are not ours.

    Args:
        words: Program and arguments.
        whole: Whether the command is one to be typed; in running text only its options count.
    """
    program = Path(words[0]).name
    arguments = words[1:]
    whole = whole and ELISION not in words
    if program in ("torchrun", "srun"):
        ours = [i for i, word in enumerate(words) if Path(word).name in names.PACKAGES]
        if ours:
            yield from mistakes(words[ours[0] :], whole=whole)
    elif program in names.PACKAGES:
        yield from _of_bc2(program, arguments, whole)
    elif program.startswith("bc2-"):
        yield f"there is no command {program}"
    elif program in ("python", "python3"):
        yield from _of_python(arguments, whole)
    elif program in ("pip", "nox", "pytest"):
        yield from _MODULES[program](arguments)
    elif program in ("bash", "sh") and arguments:
        yield from _missing_files(arguments[:1])


@cache
def parser_of(program: str) -> ArgumentParser:
    """Returns the parser of one of the four commands."""
    cli = importlib.import_module(program.replace("-", "_") + ".cli")
    seen: list[ArgumentParser] = []

    def keep(parser: ArgumentParser, argv: Sequence[str] | None) -> int:
        seen.append(parser)
        return 0

    with mock.patch.object(cli, "run", keep):
        cli.main([])
    return seen[0]


@cache
def subcommands(program: str) -> dict[str, ArgumentParser]:
    """Returns the parsers of a command's subcommands."""
    actions = parser_of(program)._actions
    (action,) = (a for a in actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@cache
def options_of_bc2() -> set[str]:
    """Returns every option of the four commands."""
    parsers = [
        parser
        for program in names.PACKAGES
        for parser in (parser_of(program), *subcommands(program).values())
    ]
    return {option for parser in parsers for option in parser._option_string_actions}


def _of_bc2(program: str, arguments: Sequence[str], whole: bool) -> Iterator[str]:
    if not arguments or (not whole and _PLACEHOLDER.match(arguments[0])):
        return
    parser = parser_of(program)
    if arguments[0].startswith("-"):
        unknown = [arguments[0]] if arguments[0] not in parser._option_string_actions else []
    elif arguments[0] not in subcommands(program):
        yield f"{program} has no subcommand {arguments[0]}"
        return
    else:
        known = subcommands(program)[arguments[0]]._option_string_actions
        given = [word.partition("=")[0] for word in arguments[1:] if word.startswith("--")]
        unknown = [option for option in given if option not in known and option != "--"]
    if unknown:
        yield f"{program} {arguments[0]} has no option {unknown[0]}"
        return
    yield from _wrong_settings(arguments)
    if whole:
        yield from _refused(parser, arguments)


def _wrong_settings(arguments: Sequence[str]) -> Iterator[str]:
    for option, setting in itertools.pairwise(arguments):
        key = setting.partition("=")[0]
        if option != "--set" or setting in ("KEY=VALUE", ELISION):
            continue
        # The names below data.blend are the user's.
        if key not in names.keys_of_a_run() and not key.startswith("data.blend."):
            yield f"a run has no key {key}"


def _refused(parser: ArgumentParser, arguments: Sequence[str]) -> Iterator[str]:
    """Lets the parser read the arguments, and where they name a recipe, the configuration."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = parser.parse_args(arguments)
    except SystemExit as exit_:
        if exit_.code:
            yield complaint.getvalue().partition("\n")[0].removeprefix("error: ")
        return
    recipe = getattr(parsed, "recipe", None)
    if recipe is None or _PLACEHOLDER.match(recipe) or recipe.endswith(".yaml"):
        return
    if recipe not in recipe_names():
        yield f"there is no recipe {recipe}"
        return
    settings = list(parsed.overrides)
    if "plan" in arguments:  # asks for no data
        settings = ["data.prefix=data", "run.dir=run", *settings]
    try:
        load(recipe, settings)
    except Bc2Error as error:
        yield error.message


def _of_python(arguments: Sequence[str], whole: bool) -> Iterator[str]:
    if not arguments:
        return
    if arguments[0] == "-m" and len(arguments) > 1:
        module = _MODULES.get(arguments[1])
        yield from module(arguments[2:]) if module else ()
    elif arguments[0] == "-c":
        compile(arguments[1], "-c", "exec")
    elif arguments[0].endswith(".py"):
        missing = list(_missing_files(arguments[:1]))
        yield from missing
        if not missing and whole and arguments[1:]:
            yield from _refused_by_script(ROOT / arguments[0], tuple(arguments[1:]))


class _ParsedError(Exception):
    """Ends a script where it has understood its arguments."""


@cache
def _refused_by_script(script: Path, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Runs a script up to where its arguments are parsed."""
    parse = ArgumentParser.parse_known_args

    def stop(parser: ArgumentParser, *given: object, **more: object) -> object:
        _, unknown = parse(parser, arguments)
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        raise _ParsedError

    if "parse" not in script.read_text(encoding="utf-8"):
        return (f"{script.name} takes no arguments",)
    complaint = io.StringIO()
    path = [str(script.parent), *sys.path]
    try:
        with (
            mock.patch.object(ArgumentParser, "parse_known_args", stop),
            mock.patch.object(sys, "argv", [str(script), *arguments]),
            mock.patch.object(sys, "path", path),
            contextlib.redirect_stderr(complaint),
        ):
            runpy.run_path(str(script), run_name="__main__")
    except _ParsedError:
        return ()
    except SystemExit:
        return (complaint.getvalue().strip().rpartition("\n")[2],)
    return (f"{script.name} never parsed its arguments",)


def _of_pip(arguments: Sequence[str]) -> Iterator[str]:
    for word in arguments[1:] if arguments[:1] == ["install"] else arguments:
        match = re.fullmatch(r"(\./packages/)?(bc2-[\w-]+)(?:\[([\w,]+)\])?/?", word)
        if match is None:
            if word.startswith("./"):
                yield from _missing_files([word])
            continue
        if match[2] not in names.PACKAGES:
            yield f"there is no package {match[2]}"
            continue
        unknown = set((match[3] or "").split(",")) - names.extras()[match[2]] - {""}
        if unknown:
            yield f"{match[2]} has no extra {', '.join(sorted(unknown))}"


def _of_nox(arguments: Sequence[str]) -> Iterator[str]:
    words = list(arguments)
    given = words[words.index("--") + 1 :] if "--" in words else []
    session = next((b for a, b in itertools.pairwise(words) if a in ("-s", "-e")), None)
    if session is None or _PLACEHOLDER.match(session):
        return
    if session not in names.sessions():
        yield f"nox has no session {session}"
    elif session == "demo" and given:
        yield from _of_bc2("bc2-train", ["demo", *given], whole=True)
    elif session in ("tests", "soak"):
        yield from _of_pytest(given)


def _of_pytest(arguments: Sequence[str]) -> Iterator[str]:
    known = _PYTEST | names.options_of_scripts()
    chosen = ""
    files = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        if before == "-k":
            chosen = word
        elif word.startswith("-"):
            if word.partition("=")[0] not in known:
                yield f"pytest is not given {word} anywhere else"
        elif "/" in word:
            files.append(word.partition("::")[0])
            yield from _missing_files(files[-1:])
    tests = "".join((ROOT / file).read_text() for file in files if (ROOT / file).is_file())
    for name in set(re.findall(r"\w+", chosen)) - {"and", "or", "not"}:
        if name not in tests:
            yield f"no test of {', '.join(files)} is called {name}"


def _missing_files(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if not Path(path).is_absolute() and not (ROOT / path).exists():
            yield f"there is no {path}"


_MODULES: dict[str, Callable[[Sequence[str]], Iterator[str]]] = {
    "pip": _of_pip,
    "nox": _of_nox,
    "pytest": _of_pytest,
}
