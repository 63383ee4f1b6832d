"""What there is to know of a network from this device: listened for on the LAN, asked of seeds and remembered peers.

Changes nothing: it speaks with an identity made for the occasion, as an observer, and leaves the state folder as it is.
"""

import os
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.control import ask, socket_path
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, PeerRecord, Role
from p2pfed.doctor.asking import Answer, Target, say_hello
from p2pfed.doctor.finding import Finding, warn
from p2pfed.doctor.multicast import Heard, listen
from p2pfed.doctor.reach import PROBE_S, Context, Probe, seeds_of
from p2pfed.errors import LocalError, P2pfedError
from p2pfed.net.identity import load_identity, new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.ports import Encoding, PeerId
from p2pfed.store import Home

LISTEN_S = 3.0
"""An answer to a question comes within 1.2 s; the second and the third question are for packets that got lost."""
TARGETS_MAX = 16
"""Peers of one means that are asked: enough to judge this device by."""
STATUS_S = 2.0
SURVEY_S = 14.0
"""For all of it: the doctor ends within 20 s."""
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@dataclass(slots=True)
class Survey:
    """What came in. A means that is switched off gives nothing."""

    hello: Hello
    peer: PeerId | None
    """This device's own, where its state folder has an identity."""
    status: dict[str, object] | None
    """Of the node that runs in that state folder."""
    heard: Heard | None = None
    lan: list[Answer] = field(default_factory=list)
    seeds: list[Answer] = field(default_factory=list)
    remembered: list[Answer] = field(default_factory=list)
    own: list[Answer] = field(default_factory=list)
    """This device's running node, one for each of its addresses."""
    probed: list[Finding] = field(default_factory=list)
    cut_off: bool = False

    def answers(self) -> list[Answer]:
        """One a peer, of all that answered."""
        found: dict[PeerId, Answer] = {}
        for each in (*self.lan, *self.seeds, *self.remembered):
            if each.hello is not None:
                found.setdefault(each.target.peer, each)
        return list(found.values())


async def survey(network: NetworkConfig, config: NodeConfig, home: Path, probes: Sequence[Probe]) -> Survey:
    """Raises ConfigError for a bootstrap address that is none."""
    seeds, unresolved = await seeds_of(network, config)
    status = await trio.to_thread.run_sync(_status, home)
    found = Survey(_hello(network), _own_peer(home), status, probed=unresolved)
    transport = _transport(config, running=status is not None)
    with trio.move_on_after(SURVEY_S) as scope:
        async with transport.running(), trio.open_nursery() as nursery:
            asking = partial(_ask_all, transport, found)
            nursery.start_soon(asking, seeds, found.seeds)
            nursery.start_soon(asking, _remembered(home), found.remembered)
            nursery.start_soon(asking, _own_addresses(found), found.own)
            if config.mdns:
                found.heard = await listen(config.interfaces, LISTEN_S)
                await asking(_lan(found), found.lan)
            reached = tuple(PeerRecord(each.target.peer, (each.address,)) for each in found.answers())
            context = Context(network, config, transport, found.hello, reached, status)
            for probe in probes:
                nursery.start_soon(_run_probe, probe, context, found.probed)
    found.cut_off = scope.cancelled_caught
    return found


async def _ask_all(transport: Libp2pTransport, found: Survey, targets: Iterable[Target], into: list[Answer]) -> None:
    """All at once; the answers in the order of the targets."""
    asked = list(targets)[:TARGETS_MAX]
    answers: dict[Target, Answer] = {}

    async def ask_one(target: Target) -> None:
        answers[target] = await say_hello(transport, found.hello, target)

    async with trio.open_nursery() as nursery:
        for target in asked:
            nursery.start_soon(ask_one, target)
    into.extend(answers[target] for target in asked)


async def _run_probe(probe: Probe, context: Context, into: list[Finding]) -> None:
    try:
        with trio.fail_after(PROBE_S):
            into.extend(await probe.run(context))
    except trio.TooSlowError:
        into.append(warn(probe.name, f"gave nothing within {PROBE_S:g} s", "try again; if it stays, ask other seeds"))
    except P2pfedError as error:
        into.append(warn(probe.name, str(error), "try again; if it stays, ask other seeds"))


def _lan(found: Survey) -> list[Target]:
    """Each p2pfed peer that was heard, of this network and of others."""
    targets: dict[PeerId, dict[str, None]] = {}
    for each in found.heard.sightings if found.heard is not None else ():
        if each.announcement.network_id and each.announcement.peer != found.peer:
            targets.setdefault(each.announcement.peer, {}).update(dict.fromkeys(each.announcement.addresses))
    return [Target(peer, tuple(addresses), "LAN") for peer, addresses in targets.items()]


def _remembered(home: Path) -> list[Target]:
    """Read without the folder's lock, which a running node holds: the file is replaced, never changed."""
    return [Target(each.peer, each.addresses, "remembered") for each in Home(home, 0).load_peers()]


def _own_addresses(found: Survey) -> list[Target]:
    addresses = found.status.get("addresses") if found.status is not None else None
    if found.peer is None or not isinstance(addresses, list):
        return []
    return [Target(found.peer, (str(each).partition("/p2p/")[0],), "own") for each in addresses]


def _own_peer(home: Path) -> PeerId | None:
    try:
        return load_identity(home / "identity.key").peer_id
    except (FileNotFoundError, LocalError):  # said by check_home, or by the node at its start
        return None


def _status(home: Path) -> dict[str, object] | None:
    try:
        status = ask(socket_path(home, os.environ), "status", STATUS_S)
    except P2pfedError:
        return None
    return status if isinstance(status, dict) else None


def _transport(config: NodeConfig, running: bool) -> Libp2pTransport:
    """Where the node would listen, so that others can be asked to dial there; loopback where that is taken."""
    from p2pfed.net.address import parse_address
    from p2pfed.net.interfaces import listen_plan

    listen = config.listen
    try:
        listen_plan([parse_address(each) for each in listen])
    except LocalError:
        running = True
    return Libp2pTransport(new_identity(), (LOOPBACK,) if running else listen, interfaces=config.interfaces)


def _hello(network: NetworkConfig) -> Hello:
    return Hello(
        version=PROTOCOL_VERSION,
        network_id=network.network_id,
        network=network.fields(),
        fingerprint=(),
        role=Role.OBSERVER,
        encoding=Encoding(network.gossip.encoding),
        instance=secrets.randbits(53),
        name="doctor",
        addresses=(),
        time_s=time.time(),
    )
