"""The checks that every page goes through; each yields places and what is wrong there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

from documentation import commands, names
from documentation.pages import ROOT, Block, Page, Span
from documentation.shell import ShellError, simple_commands

Check = Callable[[Page], Iterator[str]]

SHELL = ("sh", "bash")
REASONS = {
    "network": "downloads or installs",
    "release": "needs the weights of a whole release, tens of GB",
    "devices": "needs NPUs or GPUs",
    "cluster": "needs several hosts, Slurm or Ray",
    "root": "changes the machine",
    "long": "takes minutes or longer; run where its figures or outputs are told",
}
"""Why a block of ```bash is run by no test: the second word behind its fence."""

# What bc2 has no option for, but writes about.
UPSTREAM_OPTIONS = {
    "--merge-mlp",
    "--pse",
    "--mlp-layer-fusion",
    "--lm-norm-weight",
    "--make-vocab-size-divisible-by",
    "--install-for-all",
    "--signal",
}
UPSTREAM_FILES = (
    "conversion/",
    "models/baichuan.py",
    "baichuan.py",
    "convert_hf_to_gguf.py",
    "fine-tune.py",
    "torch_npu/",
    "examples/baichuan2",
)
WRITTEN_BY_COMMANDS = ("runs/", "demo-run/", "logs/", "PREFIX")

_PROGRAM = re.compile(r"^(bc2-\w+|python3?|pip|nox|pytest|torchrun)\s+[\w./-]", re.MULTILINE)
_DOTTED = re.compile(r"^bc2_(data|ckpt|model|train)(\.\w+)+(\(\))?$")
_ENDINGS = {"json", "jsonl", "yaml", "txt", "py", "md"}
_FILE = re.compile(r"^[\w./{},*-]+\.(py|md|yaml|toml|txt|c|sh)$")
_FOLDER = re.compile(r"^(packages|tests|tools|docs|examples)/[\w./-]*$")
_FIGURE = re.compile(r"\d\s?(s|ms|µs|KB|MB|GB|MiB|GiB|%|times|tokens/s|GFLOP/s|TFLOP/s)(?!\w)")


def links(page: Page) -> Iterator[str]:
    """Links lead to files and headings that exist."""
    for link in page.links:
        if re.match(r"https://|mailto:", link.text):
            continue
        path, _, anchor = unquote(link.text).partition("#")
        target = (page.path.parent / path) if path else page.path
        if not target.exists():
            yield f"{page.at(link.line)}: the link {link.text} leads nowhere"
        elif anchor and target.suffix == ".md" and anchor not in _page(target, page).anchors:
            yield f"{page.at(link.line)}: {target.name} has no heading #{anchor}"


def _page(target: Path, page: Page) -> Page:
    return page if target == page.path else Page.read(target)


def command_lines(page: Page) -> Iterator[str]:
    """Commands are ones that the programs take."""
    for block in page.blocks:
        if block.language in (*SHELL, ""):
            for line, what in _mistakes(block):
                yield f"{page.at(line)}: {what}"
    for code in page.codes:
        text = " ".join(code.text.split())
        if _PROGRAM.match(text):
            try:
                found = list(simple_commands(text, code.line))
            except ShellError:
                continue
            for command in found:
                for what in commands.mistakes(command.words, whole=False):
                    yield f"{page.at(code.line)}: {what}"


def _mistakes(block: Block) -> Iterator[tuple[int, str]]:
    if not block.language and not _PROGRAM.search(block.text):
        return
    try:
        for command in simple_commands(block.text, block.line):
            for what in commands.mistakes(command.words, whole=True):
                yield command.line, what
    except ShellError as error:
        yield error.line, str(error)


def classified(page: Page) -> Iterator[str]:
    """A block of commands is run by a test (sh), or says why not (bash and a reason)."""
    for block in page.blocks:
        place = page.at(block.line - 1)
        if not block.info and _PROGRAM.search(block.text):
            yield f"{place}: commands without a mark: ```sh if a test runs them, or ```bash REASON"
        elif block.language == "bash" and block.info.partition(" ")[2] not in REASONS:
            yield f"{place}: ```bash is to be followed by one of {', '.join(REASONS)}"


def options(page: Page) -> Iterator[str]:
    """Options in running text exist."""
    known = commands.options_of_bc2() | names.options_of_scripts() | UPSTREAM_OPTIONS
    for code in page.codes:
        if code.text.startswith("--"):
            for option in re.findall(r"(?:^|\s)(--[a-z][\w-]*)", code.text):
                if option not in known:
                    yield f"{page.at(code.line)}: nothing here has an option {option}"


def keys(page: Page) -> Iterator[str]:
    """Keys of a run in running text exist."""
    known = names.keys_of_a_run()
    groups = {key.partition(".")[0] for key in known if "." in key}
    for code in page.codes:
        key = code.text.partition("=")[0]
        group, _, last = key.partition(".")
        named = group in groups and re.fullmatch(r"[a-z_]+", last) and last not in _ENDINGS
        if named and key not in known:
            yield f"{page.at(code.line)}: a run has no key {key}"


def code_names(page: Page) -> Iterator[str]:
    """Modules, classes and functions of bc2 exist, also those that Python blocks import."""
    for code in page.codes:
        if _DOTTED.match(code.text) and not names.find_name(code.text):
            yield f"{page.at(code.line)}: there is no {code.text}"
    for block in page.blocks:
        if block.language == "python":
            try:
                missing = list(names.missing_imports(block.text))
            except SyntaxError as error:
                yield f"{page.at(block.line + (error.lineno or 1) - 1)}: {error.msg}"
                continue
            for line, name in missing:
                yield f"{page.at(block.line + line - 1)}: there is no {name}"


def files(page: Page) -> Iterator[str]:
    """Files and folders of the repository exist where a page says."""
    for code in page.codes:
        if (_FILE.match(code.text) or _FOLDER.match(code.text)) and not _is_file(page, code):
            yield f"{page.at(code.line)}: there is no {code.text}"


def _is_file(page: Page, code: Span) -> bool:
    text = code.text.removesuffix("/")
    if text.startswith((*UPSTREAM_FILES, *WRITTEN_BY_COMMANDS)):
        return True
    if "/" not in text:
        return _is_known_name(text)
    if text.startswith("/"):
        return True  # of the machine
    folders = [ROOT, page.path.parent, *names.SOURCES]
    folders += [package for source in names.SOURCES for package in source.iterdir()]
    return any(list(folder.glob(text)) for folder in folders)


def _is_known_name(name: str) -> bool:
    """A bare name counts if it is a file's, or if it names what users or commands make."""
    return name in names.files_by_name() or not re.match(r"(test_)?\w+\.py$", name)


def figures(page: Page) -> Iterator[str]:
    """Every section that tells a measured figure has the command that measures it."""
    lines = page.text.splitlines()
    for section in page.sections:
        text = "\n".join(lines[section.line - 1 : section.end])
        if not _FIGURE.search(text):
            continue
        spans = [span for span in (*page.blocks, *page.codes) if section.holds(span)]
        if not any(_PROGRAM.search(span.text.replace("`", "")) for span in spans):
            yield f"{page.at(section.line)}: figures without a command in {section.title!r}"


ALL: tuple[Check, ...] = (links, command_lines, options, keys, code_names, files)
