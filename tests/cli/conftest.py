"""A shell, a state folder of its own, a network, and nodes that cost nothing to train."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2pfed import api
from tests.cli.shell import Shell
from tests.fakes import VectorLearner

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)

StartNode = Callable[..., api.Node]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    """State goes below tmp_path/state; help is wide enough for its words not to be torn."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture
def network(shell: Shell) -> Path:
    """Without momentum: the vectors below have none."""
    assert shell("network", "create", "trial", "--model", "glassllm-en", "--momentum", "local").code == 0
    return Path("trial.toml").absolute()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "The cat sat."}\n{"oops": 1}\n\n{"text": "The dog ran."}\n')
    return path


@pytest.fixture
def start_node(network: Path) -> Iterator[StartNode]:
    """Starts nodes of that network in this process, in the folders the command line would take."""
    with ExitStack() as stack:

        def start(name: str, *bootstrap: str, home: str = "") -> api.Node:
            config = api.NodeConfig(
                name=name, home=home, listen=LOOPBACK, bootstrap=bootstrap, mdns=False, steps_max=20
            )
            node = api.Node(api.load_network(network), config, VectorLearner(1.0))
            return stack.enter_context(node)

        yield start
