"""What a user reads is what the program does: every command in the pages exists, with every option named."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from p2pfed.cli.main import _application

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / name / "README.md" for name in ("node", "bootstrap")),
]


def commands(page: Path) -> list[str]:
    """Lines of code blocks that call p2pfed, continued lines joined, comments cut."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("p2pfed ") and not line.startswith("p2pfed: ")]


CALLS = [(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in commands(page)]


def test_the_readme_opens_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert text.index("make demo") < text.index("make test") < text.index("## Two devices")
    assert "\ndemo:" in makefile and "\ntest:" in makefile
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")


def test_pages_show_commands() -> None:
    assert len([page for page, _ in CALLS if page == "README.md"]) >= 8


@pytest.mark.parametrize(("page", "line"), CALLS)
def test_the_command_exists_with_its_options(page: str, line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word not in ("...", "|")]
    command = typer.main.get_command(_application())
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not getattr(command, "commands", None) or words == [] or words[0].startswith("-"), f"{line}: no such command"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    named = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    assert [option for option in named if option not in {*known, "--help"}] == [], f"{page}: {line}"
