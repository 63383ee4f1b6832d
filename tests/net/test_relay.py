"""Circuit relay v2: peers that meet through a relay, its limits, strangers on its protocols, its death."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from p2pfed.errors import P2pfedError, RemoteError, TransportError
from p2pfed.net import circuit, relay_client, relay_server
from p2pfed.net.address import parse_address
from p2pfed.net.circuit import HOP, STOP, Refused, pb
from p2pfed.net.identity import Identity, new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.raw_stream import RawStream
from p2pfed.net.relay_client import RelayClient
from p2pfed.net.relay_server import RelayLimits, RelayServer
from p2pfed.ports import FRAME_BYTES_MAX, Link, PeerId
from tests.transport_suite import ECHO, SILENT, serve, until

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
LIMIT_S = 20.0
CLOCK_S = 1_000_000.0


def clock() -> float:
    return CLOCK_S + trio.current_time()


@dataclass
class Peer:
    """A node that keeps a reservation, serves the transport suite's protocols, and counts who came by a circuit."""

    relays: list[tuple[PeerId, str]]
    wants: bool = True
    came: list[PeerId] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.transport = Libp2pTransport(new_identity(), LOOPBACK)
        serve(self.transport)
        self.client = RelayClient(
            self.transport,
            lambda: self.relays,
            wall_clock=clock,
            rng=random.Random(1),
            on_change=self.changed,
            on_circuit=self.came.append,
        )
        self.client.want(self.wants)

    def changed(self) -> None:
        self.changes += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.transport.running(), trio.open_nursery() as nursery:
            nursery.start_soon(self.client.run)
            yield
            nursery.cancel_scope.cancel()

    async def reserved(self) -> str:
        await until(lambda: len(self.client.addresses()) > 0)
        return self.client.addresses()[0]


class Relay:
    def __init__(self, limits: RelayLimits | None = None, identity: Identity | None = None, port: int = 0) -> None:
        self.transport = Libp2pTransport(identity or new_identity(), (f"/ip4/127.0.0.1/tcp/{port}",))
        self.server = RelayServer(self.transport, clock, limits)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.transport.running(), trio.open_nursery() as nursery:
            nursery.start_soon(self.server.run)
            yield
            nursery.cancel_scope.cancel()

    @property
    def known(self) -> list[tuple[PeerId, str]]:
        return [(self.transport.peer, self.transport.addresses()[0])]


@asynccontextmanager
async def meeting(limits: RelayLimits | None = None) -> AsyncIterator[tuple[Relay, Peer, Peer, str]]:
    """A relay, a peer that reserved with it, one that did not, and the circuit address of the first."""
    relay = Relay(limits)
    with trio.fail_after(LIMIT_S):
        async with relay.running():
            far, near = Peer(relay.known), Peer(relay.known, wants=False)
            async with far.running(), near.running():
                yield relay, far, near, await far.reserved()


def test_two_peers_meet_through_a_relay() -> None:
    async def main() -> None:
        async with meeting() as (relay, far, near, address):
            assert parse_address(address).relay == relay.transport.peer
            link = await near.transport.open(far.transport.peer, address, ECHO)
            assert link.address == address and link.peer == far.transport.peer
            frame = bytes(FRAME_BYTES_MAX)
            for _ in range(4):
                await link.send(frame)
                assert await link.receive() == frame
            assert relay.server.bytes_relayed > 8 * FRAME_BYTES_MAX
            assert relay.server.circuits == 1
            assert far.came == [near.transport.peer]
            await near.transport.disconnect(far.transport.peer)
            await until(lambda: relay.server.circuits == 0)

    trio.run(main)


def test_the_far_peer_opens_streams_too_and_sees_the_way() -> None:
    async def main() -> None:
        async with meeting() as (_, far, near, address):
            await near.transport.open(far.transport.peer, address, ECHO)
            link = await far.transport.open(near.transport.peer, address, ECHO)
            await link.send(b"back")
            assert await link.receive() == b"back"
            assert link.address == address

    trio.run(main)


def test_last_words_arrive() -> None:
    async def main() -> None:
        async with meeting() as (_, far, near, address):
            heard: list[bytes] = []

            async def hear(link: Link) -> None:
                heard.append(await link.receive())

            far.transport.serve("/words", hear)
            link = await near.transport.open(far.transport.peer, address, "/words")
            await link.send(b"last words")
            await near.transport.disconnect(far.transport.peer)
            await until(lambda: heard == [b"last words"])

    trio.run(main)


def test_a_relay_without_a_reservation_or_with_another_peer_refuses() -> None:
    async def main() -> None:
        async with meeting() as (relay, far, near, address):
            with pytest.raises(Refused, match="no reservation"):
                await far.transport.open(near.transport.peer, address, ECHO)
            with pytest.raises(TransportError, match="no way"):
                await near.transport.open(relay.transport.peer, address, ECHO)
            with pytest.raises(TransportError, match="no way"):
                await near.transport.open(None, address, ECHO)

    trio.run(main)


def test_a_reader_that_stalls_holds_the_sender_back() -> None:
    """Windows end to end, and two pieces in the relay: nothing else is kept for a peer that does not read."""

    async def main() -> None:
        async with meeting(RelayLimits(circuit_bytes_per_s=1e9)) as (relay, far, near, address):
            link = await near.transport.open(far.transport.peer, address, SILENT)
            with trio.move_on_after(1.5) as scope:
                while True:
                    await link.send(bytes(FRAME_BYTES_MAX))
            assert scope.cancelled_caught
            assert relay.server.bytes_relayed < 4 * 1024 * 1024

    trio.run(main)


def test_bytes_and_time_of_a_circuit_end() -> None:
    async def main() -> None:
        async with meeting(RelayLimits(circuit_bytes_max=300_000)) as (relay, far, near, address):
            link = await near.transport.open(far.transport.peer, address, ECHO)
            with pytest.raises(TransportError):
                for _ in range(4):
                    await link.send(bytes(100_000))
                    await link.receive()
            await until(lambda: relay.server.circuits == 0)
            assert relay.server.bytes_relayed <= 600_000
        async with meeting(RelayLimits(circuit_s=0.5)) as (relay, far, near, address):
            link = await near.transport.open(far.transport.peer, address, ECHO)
            with pytest.raises(TransportError):
                await link.receive()

    trio.run(main)


def test_a_circuit_has_a_rate() -> None:
    async def main() -> None:
        async with meeting(RelayLimits(circuit_bytes_per_s=400_000)) as (_, far, near, address):
            link = await near.transport.open(far.transport.peer, address, ECHO)
            began_at = trio.current_time()
            await link.send(bytes(400_000))
            await link.receive()
            assert trio.current_time() - began_at > 0.8

    trio.run(main)


def test_circuits_and_reservations_have_numbers() -> None:
    async def main() -> None:
        async with meeting(RelayLimits(circuits_per_peer_max=1, reservations_max=1)) as (relay, far, near, address):
            second = Peer(relay.known)
            async with second.running():
                await near.transport.open(far.transport.peer, address, ECHO)
                with pytest.raises(Refused, match="resource limit"):
                    await second.transport.open(far.transport.peer, address, ECHO)
                await trio.sleep(0.2)
                assert not second.client.addresses()
                assert relay.server.reservations == 1

    trio.run(main)


def test_asks_have_a_rate() -> None:
    async def main() -> None:
        limits = RelayLimits(asks_burst=3, asks_per_minute=0.0)
        async with meeting(limits) as (_, far, near, address):
            outcomes: list[str] = []
            for _ in range(5):
                try:
                    await near.transport.open(far.transport.peer, address, ECHO)
                    outcomes.append("open")
                    await near.transport.disconnect(far.transport.peer)
                except Refused as refused:
                    outcomes.append(circuit.status_name(refused.status))
            assert outcomes == ["open"] * 3 + ["resource limit exceeded"] * 2

    trio.run(main)


def test_a_reservation_is_renewed_and_ends_with_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_client, "RENEW_MIN_S", 0.1)

    async def main() -> None:
        async with meeting(RelayLimits(reservation_s=0.5)) as (relay, far, near, address):
            await trio.sleep(1.2)
            link = await near.transport.open(far.transport.peer, address, ECHO)
            await link.send(b"still")
            assert await link.receive() == b"still"
            assert far.changes == 1
        monkeypatch.setattr(relay_client, "RENEW_MIN_S", 60.0)
        async with meeting(RelayLimits(reservation_s=0.5)) as (relay, far, near, address):
            await until(lambda: relay.server.reservations == 0)  # nobody renewed
        async with meeting() as (relay, far, near, address):
            await relay.transport.disconnect(far.transport.peer)
            assert relay.server.reservations == 1  # held
            far.relays.clear()
            far.client.want(False)
            await far.transport._swarm.close()
            await until(lambda: relay.server.reservations == 0)

    trio.run(main)


def test_a_dead_relay_ends_its_circuits_and_is_found_again_when_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_client, "RETRY_FIRST_S", 0.1)
    identity = new_identity()

    async def main() -> None:
        with trio.fail_after(LIMIT_S):
            first = Relay(identity=identity)
            far = Peer([])
            near = Peer([], wants=False)
            async with far.running(), near.running():
                async with first.running():
                    port = parse_address(first.transport.addresses()[0]).port
                    far.relays += first.known
                    link = await near.transport.open(far.transport.peer, await far.reserved(), ECHO)
                with pytest.raises(TransportError):
                    await link.receive()
                await until(lambda: not far.client.addresses())
                second = Relay(identity=identity, port=port)
                async with second.running():
                    link = await near.transport.open(far.transport.peer, await far.reserved(), ECHO)
                    await link.send(b"again")
                    assert await link.receive() == b"again"

    trio.run(main)


Garbage = Callable[[RawStream], Any]


async def raw_bytes(raw: RawStream) -> None:
    await raw.write(b"\x05hello")


async def long_message(raw: RawStream) -> None:
    await raw.write(b"\xff\xff\x7f" + bytes(1000))


async def no_type(raw: RawStream) -> None:
    await raw.write_message(b"")


async def unknown_type(raw: RawStream) -> None:
    await raw.write_message(b"\x08\x63")


async def no_peer(raw: RawStream) -> None:
    await raw.write_message(pb.HopMessage(type=pb.HopMessage.CONNECT).SerializeToString())


async def odd_peer(raw: RawStream) -> None:
    ask = pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=bytes(1000)))
    await raw.write_message(ask.SerializeToString())


@pytest.mark.parametrize("protocol", [HOP, STOP], ids=["hop", "stop"])
@pytest.mark.parametrize("garbage", [raw_bytes, long_message, no_type, unknown_type, no_peer, odd_peer])
def test_garbage_ends_its_stream_and_nothing_else(protocol: str, garbage: Garbage) -> None:
    async def main() -> None:
        async with meeting() as (relay, far, near, address):
            source, victim = (near, relay.transport) if protocol == HOP else (relay, far.transport)
            raw = await source.transport.open_raw(victim.peer, victim.addresses()[0], protocol)
            await garbage(raw)
            with trio.move_on_after(5) as scope:
                try:
                    answer = await circuit.read(raw, pb.HopMessage)
                    assert answer.status != pb.OK
                except P2pfedError:
                    pass
            assert not scope.cancelled_caught
            link = await near.transport.open(far.transport.peer, address, ECHO)
            await link.send(b"alive")
            assert await link.receive() == b"alive"

    trio.run(main)


def test_a_stop_of_a_stranger_is_refused() -> None:
    """Only a relay that gave a reservation brings circuits; and the peer it names must be the one that comes."""

    async def main() -> None:
        async with meeting() as (relay, far, near, _):
            ask = pb.StopMessage(
                type=pb.StopMessage.CONNECT, peer=pb.PeerId(id=circuit.peer_bytes(near.transport.peer))
            )
            raw = await near.transport.open_raw(far.transport.peer, far.transport.addresses()[0], STOP)
            await raw.write_message(ask.SerializeToString())
            assert (await circuit.read(raw, pb.StopMessage)).status == pb.PERMISSION_DENIED
            raw = await relay.transport.open_raw_standing(far.transport.peer, STOP, relayed=False)
            await raw.write_message(ask.SerializeToString())
            assert (await circuit.read(raw, pb.StopMessage)).status == pb.OK
            with pytest.raises((RemoteError, TransportError)):  # the relay itself comes, not whom it named
                await relay.transport.paths._upgrade(circuit.CircuitStream(raw, "x"), far.transport.peer, True, "lie")
                await trio.sleep(0.2)
                await relay.transport.open_raw_standing(far.transport.peer, ECHO, relayed=True)
            assert near.transport.peer not in far.came

    trio.run(main)


def test_no_circuits_through_circuits() -> None:
    async def main() -> None:
        async with meeting() as (_, far, near, address):
            nested = RelayServer(far.transport, clock)
            assert nested.reservations == 0
            await near.transport.open(far.transport.peer, address, ECHO)
            raw = await near.transport.open_raw_standing(far.transport.peer, HOP, relayed=True)
            with pytest.raises(Refused, match="permission denied"):
                await circuit.ask_reservation(raw)

    trio.run(main)


def test_the_far_peer_that_takes_nothing_costs_the_asker_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_server, "ASK_S", 0.3)

    async def main() -> None:
        async with meeting() as (relay, far, near, address):

            async def mute(raw: RawStream) -> None:
                await trio.sleep_forever()

            far.transport.serve_raw(STOP, mute)
            with pytest.raises(Refused, match="connection failed"):
                await near.transport.open(far.transport.peer, address, ECHO)
            assert relay.server.circuits == 0

    trio.run(main)
