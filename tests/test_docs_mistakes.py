"""The checks of pages find each kind of mistake, and name its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from documentation import checks
from documentation.pages import Page

RUN = "bc2-train run tiny-7b --set data.prefix=d --set run.dir=r"
MISTAKES = [
    (checks.links, "[a](absent.md)", "leads nowhere"),
    (checks.links, "[a](#absent)", "has no heading #absent"),
    (checks.command_lines, "```sh\nbc2-data tokenise x\n```", "no subcommand tokenise"),
    (checks.command_lines, "```sh\nbc2-dada verify x\n```", "there is no command bc2-dada"),
    (checks.command_lines, f"```sh\n{RUN} \\\n    --sett a=b\n```", "no option --sett"),
    (checks.command_lines, f"```\n{RUN} --set optimiser.lr=1\n```", "no key optimiser.lr"),
    (checks.command_lines, f"```sh\n{RUN} --set optimizer.lr=x\n```", "optimizer.lr is 'x'"),
    (checks.command_lines, "```sh\nbc2-train run tiny-8b\n```", "there is no recipe tiny-8b"),
    (checks.command_lines, "```sh\nbc2-train run tiny-7b\n```", "is missing"),
    (checks.command_lines, "```sh\nbc2-data verify\n```", "required"),
    (checks.command_lines, "a `bc2-ckpt convert --frm hf` b", "no option --frm"),
    (checks.command_lines, "```sh\nnox -s absent\n```", "no session absent"),
    (checks.command_lines, "```sh\npython3 -m pytest tests/absent.py\n```", "no tests/absent.py"),
    (checks.command_lines, "```sh\npytest tests/test_run.py -k absent\n```", "called absent"),
    (checks.command_lines, "```sh\npython tools/bench/ops.py --threds 2\n```", "--threds"),
    (checks.command_lines, "```sh\npython tools/bench/hashes.py 2\n```", "takes no arguments"),
    (checks.command_lines, "```sh\npip install './packages/bc2-data[slow]'\n```", "no extra slow"),
    (checks.command_lines, "```sh\nbc2-data verify 'x\n```", "never closed"),
    (checks.classified, "```\nbc2-data verify x\n```", "without a mark"),
    (checks.classified, "```bash\nbc2-data verify x\n```", "to be followed by"),
    (checks.options, "a `--absent-option` b", "has an option --absent-option"),
    (checks.keys, "a `batch.makro` b", "no key batch.makro"),
    (checks.code_names, "a `bc2_data.absent` b", "there is no bc2_data.absent"),
    (checks.code_names, "```python\nfrom bc2_data import absent\n```", "no bc2_data.absent"),
    (checks.code_names, "```python\nx = = 1\n```", "invalid syntax"),
    (checks.files, "a `tests/absent.py` b", "there is no tests/absent.py"),
    (checks.figures, "## Speed\n\nIt takes 5 s.", "figures without a command in 'Speed'"),
]


@pytest.mark.parametrize(("check", "text", "said"), MISTAKES)
def test_a_mistake_is_found(check: checks.Check, text: str, said: str, tmp_path: Path) -> None:
    found, *_ = check(write(tmp_path, text))
    place, _, what = found.partition(": ")
    assert said in what
    assert place in ("page.md:3", "page.md:4")


def test_a_page_without_mistakes_passes(tmp_path: Path) -> None:
    text = (
        f"# Title\n\n[up](#title), `bc2-data verify --help`, `data.prefix`\n\n```sh\n{RUN}\n```\n"
    )
    page = write(tmp_path, text)
    assert [what for check in (*checks.ALL, checks.classified) for what in check(page)] == []


def write(folder: Path, text: str) -> Page:
    path = folder / "page.md"
    path.write_text(f"# Title\n\n{text}\n")
    return Page.read(path)
