"""Help, version, typos, light imports, bugs."""

import subprocess
import sys

import pytest
import typer

from p2pfed import __version__
from p2pfed.cli.main import _application, explain
from p2pfed.errors import ExitCode, LocalError
from tests.cli.shell import ROOT, Shell


def commands() -> list[tuple[str, ...]]:
    """Every command there is, as typed."""
    found: list[tuple[str, ...]] = []

    def walk(command: object, words: tuple[str, ...]) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found.append(words)
        for name, each in (inner or {}).items():
            walk(each, (*words, name))

    walk(typer.main.get_command(_application()), ())
    return found


def test_the_commands_are_those_promised() -> None:
    promised = (
        "network create, network show, node start, node status, node peers, node stop, bootstrap start, "
        "bootstrap status, bootstrap peers, bootstrap stop, identity show, identity export, identity import, "
        "data check, snapshot take, doctor, demo, simulate"
    )
    assert sorted(" ".join(words) for words in commands()) == sorted(promised.split(", "))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_explains_itself(shell: Shell, words: tuple[str, ...]) -> None:
    result = shell(*words, "--help")
    assert result.code == 0
    assert "Usage: p2pfed" in result.out.replace("python -m ", "") or "Usage:" in result.out
    options = typer.main.get_command(_application())
    for word in words:
        options = options.commands[word]  # type: ignore[attr-defined]
    for parameter in options.params:
        assert getattr(parameter, "help", None), f"{' '.join(words)}: {parameter.name} is not explained"


def test_no_arguments_is_help_and_version_is_short(shell: Shell) -> None:
    assert "The usual way" in shell("-h").out
    assert shell("--version").out == f"p2pfed {__version__}\n"
    assert "node" in shell().out + shell().err


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("nod",), "node"),
        (("node", "strat"), "start"),
        (("network", "creat", "x"), "create"),
        (("node", "start", "--netwrk", "x"), "--network"),
        (("doctor", "--formt", "json"), "--format"),
    ],
)
def test_typos_name_the_nearest(shell: Shell, words: tuple[str, ...], nearest: str) -> None:
    result = shell(*words)
    assert result.code == ExitCode.USAGE
    assert nearest in result.err
    assert "Traceback" not in result.err


def test_one_sentence_whatever_the_error_holds() -> None:
    assert explain(LocalError("two\nlines", ExitCode.PORT)) == "p2pfed: two lines [exit 13, docs/exit-codes/13-port.md]"


def test_debug_shows_the_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PFED_DEBUG", "1")
    with pytest.raises(LocalError):
        shell("node", "status")


@pytest.mark.parametrize("arguments", [["--help"], ["node", "start", "--help"], ["node", "status"]])
def test_light_imports(arguments: list[str]) -> None:
    heavy = ("torch", "transformers", "peft", "bitsandbytes", "flask", "datasets", "numpy", "libp2p", "zeroconf")
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from p2pfed.cli.main import run\n"
        f"run(); print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stderr.splitlines()[-1] == "[]"


def test_a_bootstrap_peer_needs_no_torch() -> None:
    heavy = ("torch", "transformers", "peft", "bitsandbytes", "flask", "datasets", "pandas")
    code = f"import sys, p2pfed.bootstrap; print([name for name in {heavy!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout == "[]\n"
