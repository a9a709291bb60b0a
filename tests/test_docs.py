"""What the pages say: links lead somewhere, commands parse, names exist, figures have sources.

Blocks of commands carry their class behind the fence, where readers do not see it: ```sh and
```python are run as they stand by the test that `RUN_BY` names; ```bash is followed by the reason
why none can (`documentation.checks.REASONS`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import pytest

from documentation import checks
from documentation.pages import ROOT, Page, all_pages

PAGES = list(all_pages())

CKPT = "packages/bc2-ckpt/tests/test_docs.py"
DATA = "packages/bc2-data/tests/test_documentation.py"
GUIDES = "tests/test_guides.py"
RUN_BY = {
    ("README.md", "sh"): GUIDES,
    ("docs/checkpoints.md", "sh"): CKPT,
    ("docs/data.md", "sh"): DATA,
    ("docs/data.md", "python"): DATA,
    ("docs/fine-tuning.md", "sh"): GUIDES,
    ("docs/from-ascendspeed.md", "sh"): "tests/test_ascendspeed_readme.py",
    ("docs/kernels.md", "sh"): GUIDES,
    ("docs/kernels.md", "python"): GUIDES,
    ("docs/operations.md", "sh"): GUIDES,
    ("docs/training.md", "sh"): GUIDES,
    ("packages/bc2-ckpt/README.md", "sh"): CKPT,
    ("packages/bc2-ckpt/README.md", "python"): GUIDES,
    ("packages/bc2-data/README.md", "sh"): DATA,
    ("packages/bc2-data/README.md", "python"): DATA,
    ("packages/bc2-model/README.md", "sh"): GUIDES,
    ("packages/bc2-model/README.md", "python"): GUIDES,
}

pages = pytest.mark.parametrize("page", PAGES, ids=str)


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
@pages
def test_the_page_holds_what_it_says(page: Page, check: checks.Check) -> None:
    refuse(check(page))


@pages
def test_every_command_is_run_by_a_test_or_says_why_not(page: Page) -> None:
    refuse(checks.classified(page))
    for language in {block.language for block in page.blocks} & {"sh", "python"}:
        runner = RUN_BY.get((str(page), language))
        assert runner, f"{page}: no test runs its ```{language} blocks; add it to RUN_BY"
        assert page.path.name in (ROOT / runner).read_text(), f"{runner} does not name {page}"


def test_no_figure_without_its_command() -> None:
    refuse(checks.figures(Page.read(ROOT / "docs" / "benchmarks.md")))


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools" / "docs" / "api.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]


def refuse(mistakes: Iterable[str]) -> None:
    """Fails with the places that the mistakes are in, one a line."""
    found = "\n".join(mistakes)
    if found:
        pytest.fail(found, pytrace=False)
