"""What `status` says of the way others reach a peer, and of what it carries for them."""

from tests.cli.conftest import StartNode
from tests.cli.shell import Shell


def test_a_node_alone_says_that_nobody_was_asked(shell: Shell, start_node: StartNode) -> None:
    from p2pfed.cli.node import render_status

    start_node("solo")
    status = shell("node", "status", "--format", "json").json
    assert status["reachability"] == {
        "verdict": "unknown",
        "sentence": "not known: nobody outside was asked",
        "external": None,
        "nat": "unknown",
    }
    assert status["relay"] is None
    rows = {row.split()[0]: row for row in render_status(status).splitlines()}
    assert "not known: nobody outside was asked" in rows["reach"] and "relay" not in rows
    relay = {"reservations": 3, "circuits": 2, "bytes": 5_000_000}
    assert "2 circuits for 3 peers" in render_status({**status, "relay": relay})
