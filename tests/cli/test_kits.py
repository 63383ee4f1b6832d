"""What node/ and bootstrap/ hold is what the program takes."""

import json
import re
import shlex
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
import typer

from p2pfed.cli.bootstrap import LISTEN
from p2pfed.cli.main import _application
from p2pfed.config import NodeConfig
from p2pfed.config_file import load_node
from tests.cli.shell import ROOT

UNITS = ("node/p2pfed-node.service", "bootstrap/p2pfed-bootstrap.service")
CONTAINERS = ("node/Containerfile", "bootstrap/Containerfile")


def parse(arguments: list[str]) -> None:
    """By the real command line, without running anything. Fails for what it would refuse."""
    command = typer.main.get_command(_application())
    context = command.make_context("p2pfed", []) if not arguments else None
    words = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    context = command.make_context(command.name, words)
    assert not context.args


def test_node_toml_has_every_key_at_its_default() -> None:
    path = ROOT / "node" / "node.toml"
    assert load_node(path) == NodeConfig()
    assert sorted(tomllib.loads(path.read_text())) == sorted(field.name for field in fields(NodeConfig))


def test_every_key_has_its_reason_above_it() -> None:
    for path in (ROOT / "node" / "node.toml", ROOT / "bootstrap" / "bootstrap.toml"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\w+ = ", line):
                assert lines[number - 1].startswith("# "), f"{path.name}:{number + 1}: {line} is not explained"


def test_bootstrap_toml_is_the_default_of_its_command() -> None:
    config = load_node(ROOT / "bootstrap" / "bootstrap.toml")
    assert config == replace(NodeConfig(), listen=(LISTEN,), mdns=False)


@pytest.mark.parametrize("unit", UNITS)
def test_units_start_a_command_that_exists(unit: str) -> None:
    text = (ROOT / unit).read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    parse(shlex.split(line)[1:])
    for wanted in ("KillSignal=SIGTERM", "Restart=on-failure", "DynamicUser=yes", "NoNewPrivileges=yes"):
        assert f"\n{wanted}\n" in text
    (folder,) = re.findall(r"^StateDirectory=(.*)$", text, re.MULTILINE)
    assert f"--home /var/lib/{folder}" in line


@pytest.mark.parametrize("file", CONTAINERS)
def test_containers_start_a_command_that_exists(file: str) -> None:
    text = (ROOT / file).read_text()
    (entry,), (command,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.M), re.findall(r"^CMD (.*)$", text, re.M)
    parse((json.loads(entry) + json.loads(command))[1:])
    assert "\nSTOPSIGNAL SIGTERM\n" in text and "\nUSER p2pfed\n" in text
    for source in re.findall(r"^COPY (.*) /\S+$", text, re.M):
        for each in source.split():
            assert (ROOT / each).exists(), f"{file} copies {each}, which is not there"


@pytest.mark.parametrize("kit", ["node", "bootstrap"])
def test_commands_of_the_pages_exist(kit: str) -> None:
    page = (ROOT / kit / "README.md").read_text()
    typed = re.findall(r"(?:^|\s|`)(?:/opt/p2pfed/bin/)?p2pfed ((?:node|bootstrap|data|doctor|identity) [^`\n]*)", page)
    assert typed
    for line in typed:
        words = shlex.split(line)
        if words[:2] == ["identity", "export"] and len(words) == 2:
            words.append("OUT")
        parse(words)
    for file in re.findall(r"\]\(([\w.-]+)\)", page):
        assert Path(ROOT / kit / file).exists()
