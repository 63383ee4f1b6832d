"""Every exit code has a page that says how to resolve it, and no page is left of a code that is gone."""

import re
from pathlib import Path

import pytest

from p2pfed.errors import ExitCode

PAGES = Path(__file__).parents[1] / "docs" / "exit-codes"


def page_of(code: ExitCode) -> str:
    return f"{code.value:02d}-{code.name.lower().replace('_', '-')}.md"


def test_codes_and_pages_are_the_same() -> None:
    assert sorted(path.name for path in PAGES.glob("*.md")) == sorted(["README.md", *map(page_of, ExitCode)])


def test_the_index_lists_each_page_once() -> None:
    listed = re.findall(r"^\| (\d+) \| \[([a-z-]+)\]\((\S+)\) \|", (PAGES / "README.md").read_text(), re.MULTILINE)
    assert listed == [(str(code.value), page_of(code)[:-3].partition("-")[2], page_of(code)) for code in ExitCode]


@pytest.mark.parametrize("code", ExitCode, ids=str)
def test_a_page_says_what_was_printed_and_how_to_resolve_it(code: ExitCode) -> None:
    text = (PAGES / page_of(code)).read_text()
    assert text.startswith(f"# {code.value}: ")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["What it means", "What was printed", "How to resolve it"]
    assert re.search(r"^\* \S", text.partition("## How to resolve it")[2], re.MULTILINE)
