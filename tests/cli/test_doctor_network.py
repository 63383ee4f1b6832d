"""What the doctor makes of what it heard and was told: a sentence and a remedy for each broken assumption."""

import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from p2pfed.config import ModelConfig, NetworkConfig, NodeConfig
from p2pfed.core.messages import Hello
from p2pfed.doctor import asking, survey
from p2pfed.doctor.asking import Answer, Target, say_hello
from p2pfed.doctor.echo import Echo
from p2pfed.doctor.finding import Finding, Level, ok
from p2pfed.doctor.multicast import Heard
from p2pfed.doctor.peers import (
    clock_findings,
    identity_findings,
    lan_findings,
    own_node_findings,
    remembered_findings,
    seed_findings,
)
from p2pfed.doctor.reach import Context
from p2pfed.doctor.survey import Survey, _hello, _run_probe
from p2pfed.errors import TransportError
from p2pfed.net.discovery import Sighting
from p2pfed.net.hello_desk import HELLO_PROTOCOL
from p2pfed.net.identity import Identity, new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.mdns_responder import LinkReport
from p2pfed.net.mdns_txt import Announcement
from p2pfed.net.session import exchange_hellos
from p2pfed.ports import Link

NETWORK = NetworkConfig("n", ModelConfig("package:glassllm-en"))
OTHER = replace(NETWORK, gossip=replace(NETWORK.gossip, encoding="int8"))
PEERS = tuple(Identity(bytes([number]) * 32).peer_id for number in range(1, 5))
LINK = LinkReport("eth0", 4)
ECHO = Echo("eth0", 4, sent=1, heard=1)
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def answer(number: int, skew_s: float = 0.0, network: NetworkConfig = NETWORK) -> Answer:
    hello = replace(_hello(network), name=f"node-{number}")
    return Answer(Target(PEERS[number], (), "LAN"), f"/ip4/10.0.0.{number}/tcp/1", hello, skew_s)


def silent(number: int) -> Answer:
    return Answer(Target(PEERS[number], (), "seed"), "", problem="nothing listens there", remedy="start it")


def sighting(number: int, instance: int, network_id: str = NETWORK.network_id) -> Sighting:
    return Sighting(LINK, Announcement(PEERS[number], network_id, instance, (f"/ip4/10.0.0.{instance}/tcp/1",)))


def surveyed(**changes: object) -> Survey:
    found = Survey(_hello(NETWORK), PEERS[0], None, Heard([ECHO]))
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def warned(findings: list[Finding]) -> str:
    assert findings and all(each.level is not Level.OK and each.remedy for each in findings), findings
    return " | ".join(f"{each.message} -> {each.remedy}" for each in findings)


def test_clocks_that_agree() -> None:
    (finding,) = clock_findings([answer(1, 0.4), answer(2, -59.0)])
    assert finding.level is Level.OK and "59.0 s at most" in finding.message


def test_this_clock_off_by_hours_is_loud_and_by_minutes_is_not() -> None:
    assert "this clock is 5 HOURS behind that of 3 peers" in warned(
        list(clock_findings([answer(1, 5 * 3600), answer(2, 5 * 3600 + 2), answer(3, 0.0)]))
    )
    assert "this clock is 3 minutes ahead of that of 2 peers" in warned(
        list(clock_findings([answer(1, -180), answer(2, -181)]))
    )


def test_one_peer_s_clock() -> None:
    off = warned(list(clock_findings([answer(1, -7300.0), answer(2), answer(3)])))
    assert "node-1" in off and "2 HOURS behind" in off and "on that device" in off
    assert "whichever of the two is wrong" in warned(list(clock_findings([answer(1, -7300.0)])))


def test_two_devices_with_one_identity() -> None:
    two = warned(list(identity_findings(surveyed(heard=Heard([ECHO], [sighting(1, 7), sighting(1, 8)])))))
    assert "10.0.0.7" in two and "10.0.0.8" in two and "identity.key" in two
    assert not list(identity_findings(surveyed(heard=Heard([ECHO], [sighting(1, 7), sighting(1, 7)]))))


def test_this_device_s_identity_on_another_one() -> None:
    heard = Heard([ECHO], [sighting(0, 7)])
    (elsewhere,) = identity_findings(surveyed(heard=heard))
    assert elsewhere.level is Level.FAIL and "another device" in elsewhere.message
    assert not list(identity_findings(surveyed(heard=heard, status={"name": "me"}))), "that is the node that runs here"


def test_lan_peers_and_the_field_that_differs() -> None:
    heard = Heard([ECHO], [sighting(1, 7), sighting(2, 8, OTHER.network_id), sighting(3, 0, "")])
    findings = list(lan_findings(surveyed(heard=heard, lan=[answer(1), answer(2, network=OTHER)]), NETWORK))
    other = warned([each for each in findings if each.level is not Level.OK])
    assert 'gossip.encoding is "int8" there and "int4" here' in other and "network.toml" in other
    fine = " ".join(each.message for each in findings if each.level is Level.OK)
    assert "node-1" in fine and "eth0 (IPv4)" in fine and "1 other libp2p program heard" in fine


def test_seeds_and_remembered_peers_that_are_silent() -> None:
    findings = list(seed_findings(surveyed(seeds=[silent(1), silent(2)])))
    assert "none of 2 answers" in warned(findings)
    assert "none of 2 answers" in warned(list(remembered_findings(surveyed(remembered=[silent(1), silent(2)]))))
    (some,) = remembered_findings(surveyed(remembered=[silent(1), answer(2)]))
    assert some.level is Level.OK and "1 of 2 answer" in some.message


def test_own_node() -> None:
    blocked = replace(silent(0), address="/ip4/10.0.0.5/tcp/4001")
    assert "allow TCP port 4001" in warned(list(own_node_findings(surveyed(status={"name": "me"}, own=[blocked]))))
    for verdict, level in (("direct", Level.OK), ("unreachable", Level.WARN)):
        status = {"name": "me", "reachability": {"verdict": verdict, "sentence": "so it is"}}
        *_, said = own_node_findings(surveyed(status=status, own=[answer(0)]))
        assert (said.level, said.message) == (level, "so it is")


def test_a_probe_that_hangs_or_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "PROBE_S", 0.05)

    class Hangs:
        name = "DHT"

        async def run(self, context: Context) -> list[Finding]:
            await trio.sleep_forever()
            return []

    class Fails(Hangs):
        async def run(self, context: Context) -> list[Finding]:
            raise TransportError("no seed speaks it")

    class Works(Hangs):
        async def run(self, context: Context) -> list[Finding]:
            return [ok("DHT", "12 peers")]

    async def main() -> list[Finding]:
        found: list[Finding] = []
        context = Context(NETWORK, NodeConfig(), Libp2pTransport(new_identity(), LOOPBACK), _hello(NETWORK), (), None)
        for probe in (Hangs(), Fails(), Works()):
            await _run_probe(probe, context, found)
        return found

    found = trio.run(main)
    assert [each.level for each in found] == [Level.WARN, Level.WARN, Level.OK]
    assert "nothing within" in found[0].message and "no seed speaks it" in found[1].message


def asked(serve: Callable[[Libp2pTransport], None], target: Callable[[Libp2pTransport], Target]) -> Answer:
    """What a transport that serves so answers."""

    async def main() -> Answer:
        here, there = (Libp2pTransport(new_identity(), LOOPBACK) for _ in range(2))
        serve(there)
        async with there.running(), here.running():
            return await say_hello(here, _hello(NETWORK), target(there))

    return trio.run(main)


def right(there: Libp2pTransport) -> Target:
    return Target(there.peer, tuple(there.addresses()), "seed")


def hello(own: Hello) -> Callable[[Libp2pTransport], None]:
    async def handler(link: Link) -> None:
        await exchange_hellos(link, own)

    def serve(there: Libp2pTransport) -> None:
        there.serve(HELLO_PROTOCOL, handler)

    return serve


def nothing(_: Libp2pTransport) -> None:
    pass


def silence(there: Libp2pTransport) -> None:
    async def handler(link: Link) -> None:
        await trio.sleep_forever()

    there.serve(HELLO_PROTOCOL, handler)


def test_an_answer_has_the_clock_s_difference() -> None:
    ahead = replace(_hello(NETWORK), time_s=_hello(NETWORK).time_s + 7200)
    found = asked(hello(ahead), right)
    assert found.hello is not None and 7190 < found.skew_s < 7210 and not found.problem


@pytest.mark.parametrize(
    ("serve", "target", "words"),
    [
        (nothing, right, r"answers, but not as p2pfed"),
        (silence, right, r"does not answer within"),
        (nothing, lambda there: Target(PEERS[1], tuple(there.addresses()), "seed"), r"another peer than the one named"),
        (nothing, lambda there: Target(PEERS[1], ("/ip4/127.0.0.1/tcp/1",), "seed"), r"nothing listens at .*/tcp/1"),
        (nothing, lambda there: Target(PEERS[1], ("/dns4/a.invalid/tcp/1",), "seed"), r"cannot be resolved"),
        (nothing, lambda there: Target(PEERS[1], (), "seed"), r"no address"),
    ],
)
def test_why_a_peer_does_not_answer(
    serve: Callable[[Libp2pTransport], None],
    target: Callable[[Libp2pTransport], Target],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "ASK_S", 1.0)

    async def no_such_name(*_: object, **__: object) -> Awaitable[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", no_such_name) if "resolved" in words else None
    found = asked(serve, target)
    assert found.hello is None and re.search(words, found.problem), found
    assert found.remedy
