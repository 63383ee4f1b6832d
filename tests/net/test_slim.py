"""What is left out of libp2p stays out, what is opened can be used, and the rest of libp2p goes on."""

import subprocess
import sys

import pytest

HEAVY = ("OpenSSL", "aioquic", "httpx", "prometheus_client", "requests", "sqlite3", "trio_websocket", "zeroconf")
SAVED_MIB_MIN = 25
"""Measured: 35 of 88 MiB. Less than this means that something heavy has come back."""
FIGURES = """
import sys
{before}
from p2pfed.net.libp2p import Libp2pTransport
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[1])
import resource
print(pages * resource.getpagesize() // 2**20)
print(*[name for name in {heavy} if name in sys.modules])
"""
OPENED = """
import p2pfed.net.slim
from libp2p.kad_dht.pb import kademlia_pb2
from libp2p.relay.circuit_v2.pb import circuit_pb2
from libp2p.relay.circuit_v2 import CircuitV2Protocol
print(kademlia_pb2.Message().type, circuit_pb2.HopMessage().type, isinstance(1, CircuitV2Protocol))
CircuitV2Protocol()
"""


def output_of(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_what_is_not_needed_is_not_loaded() -> None:
    slim, full = (output_of(FIGURES.format(before=before, heavy=HEAVY)).split() for before in ("", "import libp2p"))
    assert slim[1:] == []
    assert tuple(full[1:]) == HEAVY
    assert int(full[0]) - int(slim[0]) >= SAVED_MIB_MIN


@pytest.mark.slow
def test_message_formats_of_what_is_left_out_can_be_used_and_the_rest_refuses() -> None:
    run = subprocess.run([sys.executable, "-c", OPENED], capture_output=True, text=True)
    assert run.stdout.split() == ["0", "0", "False"]
    assert run.stderr.strip().endswith("RuntimeError: libp2p's CircuitV2Protocol is left out by p2pfed.net.slim")


CLAUSES = """
import ast, pathlib, sys
import p2pfed.net.libp2p
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if not name.startswith(("libp2p", "multiaddr")) or not file.endswith(".py"):
        continue
    for node in ast.walk(ast.parse(pathlib.Path(file).read_text())):
        if not isinstance(node, ast.ExceptHandler) or node.type is None:
            continue
        for each in node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]:
            if isinstance(each, ast.Name) and hasattr(module, each.id):
                caught = getattr(module, each.id)
                for one in caught if isinstance(caught, tuple) else (caught,):
                    if not (isinstance(one, type) and issubclass(one, BaseException)):
                        print(f"{name}:{node.lineno} catches {each.id}")
"""


@pytest.mark.slow
def test_what_except_clauses_name_can_be_caught() -> None:
    """Else any exception that passes such a clause, a cancellation too, becomes a TypeError."""
    assert output_of(CLAUSES) == ""
