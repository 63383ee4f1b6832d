"""A node starts and trains whatever its seeds do; what is wrong with them is one sentence, for as long as it is."""

import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from p2pfed.bootstrap import run_bootstrap
from p2pfed.config import NodeConfig
from p2pfed.errors import ConfigError, TransportError
from p2pfed.net import libp2p, seeds
from p2pfed.net.identity import new_identity
from tests.finding.crowd import NETWORK, Crowd, play, until, variant

TELL_S = 20.0
STRANGER = new_identity().peer_id


def test_nothing_listens_there_and_then_somebody_does(tmp_path: Path) -> None:
    async def story(crowd: Crowd) -> None:
        seed = await crowd.bootstrap("bootstrap")
        crowd.kill("bootstrap")
        await crowd.node("node", [seed])
        await until(lambda: "nothing listens there (connection refused)" in crowd.notices("node"), TELL_S)
        address = seed.partition("/p2p/")[0]
        assert f"{address}: nothing listens there" in crowd.notices("node") and "again" in crowd.notices("node")
        assert str(crowd.status("node")["doing"]).startswith("training")
        assert [fields["problem"] for kind, fields in crowd.logs["node"] if kind == "seeds"]
        await crowd.bootstrap("bootstrap", listen=[address])  # the same identity at the same place
        await until(lambda: crowd.notices("node") == "", 30.0, lambda: crowd.notices("node"))

    play(tmp_path, story)


def test_one_seed_of_two_is_enough_and_the_sentence_goes(tmp_path: Path) -> None:
    async def story(crowd: Crowd) -> None:
        dead, alive = await crowd.bootstrap("dead"), await crowd.bootstrap("alive")
        crowd.kill("dead")
        crowd.kill("alive")
        await crowd.node("node", [dead, alive])
        await until(lambda: crowd.notices("node").count("nothing listens there") == 2, TELL_S)
        await crowd.bootstrap("alive", listen=[alive.partition("/p2p/")[0]])
        await until(lambda: crowd.notices("node") == "", TELL_S, lambda: crowd.notices("node"))

    play(tmp_path, story)


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    async def story(crowd: Crowd) -> None:
        await crowd.node("node", [f"/dns4/nobody.invalid/tcp/4001/p2p/{STRANGER}"])
        await until(lambda: ": the name does not resolve" in crowd.notices("node"), TELL_S)

    play(tmp_path, story)


def test_a_name_leads_to_a_bootstrap_peer_once_it_resolves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records: dict[str, list[str]] = {}

    def resolve(name: str) -> list[str]:
        if name not in records:
            raise TransportError(f"the name {name} does not resolve")
        return records[name]

    monkeypatch.setattr(seeds, "_resolve_txt", resolve)

    async def story(crowd: Crowd) -> None:
        await crowd.node("node", ["/dnsaddr/peers.example"])
        sentence = "/dnsaddr/peers.example: the name _dnsaddr.peers.example does not resolve"
        await until(lambda: sentence in crowd.notices("node"), TELL_S)
        seed = await crowd.bootstrap("bootstrap")
        records["_dnsaddr.peers.example"] = [f"dnsaddr={seed}"]
        await until(lambda: crowd.status("node")["linked"] == 1, 20.0, lambda: crowd.notices("node"))
        await until(lambda: crowd.notices("node") == "", TELL_S)

    play(tmp_path, story)


def test_a_file_of_seeds_may_change_while_the_node_runs(tmp_path: Path) -> None:
    file = tmp_path / "seeds.txt"

    async def story(crowd: Crowd) -> None:
        alive, dead = await crowd.bootstrap("alive"), await crowd.bootstrap("dead")
        crowd.kill("dead")
        file.write_text(f"{dead}\n")
        await crowd.node("node", [str(file)])
        await until(lambda: ": nothing listens there" in crowd.notices("node"), TELL_S)
        file.write_text(f"{dead}\n{alive}  # a second one\n")
        await until(lambda: crowd.status("node")["linked"] == 1, 20.0, lambda: crowd.notices("node"))
        await until(lambda: crowd.notices("node") == "", TELL_S)

    play(tmp_path, story)


def test_another_peer_answers(tmp_path: Path) -> None:
    async def story(crowd: Crowd) -> None:
        seed = await crowd.bootstrap("bootstrap")
        await crowd.node("node", [f"{seed.partition('/p2p/')[0]}/p2p/{STRANGER}"])
        await until(lambda: ": another peer answers there" in crowd.notices("node"), TELL_S)

    play(tmp_path, story)


def test_a_port_where_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall that drops: whoever does not accept, and has as many waiting as it wants, drops the rest."""
    monkeypatch.setattr(libp2p, "DIAL_S", 0.5)

    async def story(crowd: Crowd) -> None:
        with socket.socket() as silent, ExitStack() as stack:
            silent.bind(("127.0.0.1", 0))
            silent.listen(0)
            for _ in range(8):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(silent.getsockname())
            await crowd.node("node", [f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{STRANGER}"])
            await until(
                lambda: ": no answer in 0 s: the host is off, or a firewall drops the port" in crowd.notices("node"),
                TELL_S,
                lambda: crowd.notices("node"),
            )

    play(tmp_path, story)


def test_the_seed_serves_other_networks_only_and_the_nearest_names_the_field(tmp_path: Path) -> None:
    async def story(crowd: Crowd) -> None:
        seed = await crowd.bootstrap("bootstrap", [variant(7), variant(9)])
        await crowd.node("node", [seed], variant(8))
        await until(lambda: "it serves another network" in crowd.notices("node"), TELL_S)
        words = crowd.notices("node")
        assert ("name is " in words or "training.batch_rows is " in words) and " there and " in words

    play(tmp_path, story)


def test_many_networks_on_one_peer_do_not_mix(tmp_path: Path) -> None:
    networks = [NETWORK, variant(7), variant(9)]

    async def story(crowd: Crowd) -> None:
        seed = await crowd.bootstrap("bootstrap", networks)
        for number, network in enumerate(networks):
            for each in range(2):
                await crowd.node(f"{number}-{each}", [seed], network)
        await until(lambda: all(crowd.neighbours(name) == 1 for name in crowd.nodes()), 30.0)
        status = crowd.status("bootstrap")
        figures = status["networks"]
        assert isinstance(figures, list)
        assert [each["network"] for each in figures] == [network.name for network in networks]
        assert [each["linked"] for each in figures] == [2, 2, 2]
        assert status["doing"] == "introducing newcomers of 3 networks, 6 linked"
        rows = crowd.runtimes["bootstrap"].peers()
        assert {row["network"] for row in rows} == {network.name for network in networks}
        assert all(crowd.notices(name) == "" for name in crowd.nodes())
        assert status["notices"] == []
        assert sorted(path.name for path in crowd.home("bootstrap").iterdir()) == [
            "control.sock",
            "events.jsonl",
            "identity.key",
            "lock",
            "starts",
        ]
        await crowd.stop("bootstrap")

    play(tmp_path, story)


def test_a_bootstrap_peer_that_lost_all_but_its_identity_knows_everybody_again(tmp_path: Path) -> None:
    async def story(crowd: Crowd) -> None:
        seed = await crowd.bootstrap("bootstrap")
        for number in range(3):
            await crowd.node(f"node-{number}", [seed])
        await until(lambda: all(crowd.neighbours(name) == 2 for name in crowd.nodes()), 20.0)
        crowd.kill("bootstrap")
        home = crowd.home("bootstrap")
        await until(lambda: not (home / "control.sock").exists(), 10.0)
        key = (home / "identity.key").read_bytes()
        shutil.rmtree(home)
        home.mkdir(mode=0o700)
        (home / "identity.key").write_bytes(key)
        (home / "identity.key").chmod(0o600)
        again = await crowd.bootstrap("bootstrap", listen=[seed.partition("/p2p/")[0]])
        assert again == seed
        await crowd.node("newcomer", [seed])
        await until(lambda: crowd.neighbours("newcomer") == 3, 30.0, lambda: crowd.neighbours("newcomer"))

    play(tmp_path, story)


def test_the_same_network_twice_is_a_mistake(tmp_path: Path) -> None:
    async def main() -> None:
        await run_bootstrap([NETWORK, NETWORK], NodeConfig(home=str(tmp_path)), lambda _kind, _fields: None)

    with pytest.raises(ConfigError, match="crowd and crowd are the same network: give it once"):
        trio.run(main)


@pytest.mark.slow
def test_nodes_told_different_seeds_meet_through_the_dht(tmp_path: Path) -> None:
    async def story(crowd: Crowd) -> None:
        a = await crowd.bootstrap("a")
        b = await crowd.bootstrap("b", seeds=[a])
        for number in range(3):
            await crowd.node(f"a-{number}", [a])
            await crowd.node(f"b-{number}", [b])
        await until(lambda: all(crowd.neighbours(name) == 5 for name in crowd.nodes()), 30.0)
        found_by = {str(row["found_by"]) for name in crowd.nodes() for row in crowd.runtimes[name].peers()}
        assert "dht" in found_by
        for name, other in (("a", "b"), ("b", "a")):
            await until(lambda name=name: len(crowd.runtimes[name].dht.providers) == 6, 20.0)
            linked = {entry.name for entry in crowd.runtimes[name].state.membership.view.linked()}
            assert not any(each.startswith(other) for each in linked), "they met at a bootstrap peer, not in the DHT"
        assert crowd.notices("a") == crowd.notices("b") == ""

    play(tmp_path, story)
