"""Carries the bytes of peers that cannot reach each other: the relay's side of circuit relay v2, for bootstrap peers.

A peer that wants to be reached reserves; whoever asks for it is then joined to it. Who asks is who the connection
proved, never who the message names. Nothing is dialled and nothing kept on disk; a reservation ends with the
connection it was made on. Each direction of a circuit has one piece in memory and waits for its receiver.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from p2pfed.errors import P2pfedError, RemoteError, TransportError
from p2pfed.net import circuit
from p2pfed.net.address import is_circuit
from p2pfed.net.allowance import Allowance
from p2pfed.net.circuit import pb
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.paths import limit
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId

log = logging.getLogger("p2pfed.net")

ASK_S = 10.0
"""For a request that was begun, and for the far peer to take a circuit."""
LINGER_S = 2.0
"""For the other direction, when one has ended."""
PIECE_BYTES = 64 * 1024
"""Read and passed on at once: two of them a circuit, 16 MiB with CIRCUITS_MAX."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What one relay gives. The defaults are a small machine's on a home or cloud line."""

    reservations_max: int = 64
    """Each keeps one of the transport's 128 connections; newcomers need the others."""
    reservation_s: float = 3600.0
    """The specification's suggestion; whoever stays renews."""
    circuits_max: int = 128
    circuits_per_peer_max: int = 16
    """At either end: eight neighbours each way."""
    circuit_bytes_max: int = 1024 * 1024 * 1024
    """Each way: a day of swaps of an adapter of a few MB; then the two meet again by a new circuit."""
    circuit_s: float = 6 * 3600.0
    circuit_bytes_per_s: float = 2 * 1024 * 1024
    """Each way: 16 Mbit/s, more than most homes send; nobody takes the whole line of the relay."""
    asks_burst: int = 20
    asks_per_minute: float = 20.0
    """Of one peer, reservations and circuits: a node that lost its relay asks for eight circuits at once."""
    asks_burst_all: int = 300
    asks_per_minute_all: float = 600.0


class RelayServer:
    """Make it before the transport runs. Its circuits live in the handlers of the streams that asked for them."""

    def __init__(
        self,
        transport: Libp2pTransport,
        wall_clock: Callable[[], float],
        limits: RelayLimits | None = None,
        addresses: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """`addresses`: where others find this relay, where that is more than the transport knows."""
        self._transport = transport
        self._addresses = addresses or transport.addresses
        self._wall_clock = wall_clock
        self._limits = limits or RelayLimits()
        self._reserved_until: dict[PeerId, float] = {}
        self._circuits: Counter[PeerId] = Counter()
        self._nursery: trio.Nursery | None = None
        self._asks = Allowance(
            burst=self._limits.asks_burst,
            per_minute=self._limits.asks_per_minute,
            burst_all=self._limits.asks_burst_all,
            per_minute_all=self._limits.asks_per_minute_all,
        )
        self.bytes_relayed = 0
        transport.serve_raw(circuit.HOP, self._on_hop)

    @property
    def reservations(self) -> int:
        return len(self._reserved_until)

    @property
    def circuits(self) -> int:
        return self._circuits.total() // 2

    async def run(self) -> None:
        """Watches those who reserved; until cancelled. Nobody gets a reservation before."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    async def _on_hop(self, raw: RawStream) -> None:
        with limit(ASK_S, f"no request within {ASK_S:.0f} s"):
            ask = await circuit.read(raw, pb.HopMessage)
        if not self._asks.allows(raw.peer, trio.current_time()):
            await circuit.send_hop_status(raw, pb.RESOURCE_LIMIT_EXCEEDED)
        elif is_circuit(raw.address):  # no circuits through circuits
            await circuit.send_hop_status(raw, pb.PERMISSION_DENIED)
        elif not ask.HasField("type") or ask.type not in (pb.HopMessage.RESERVE, pb.HopMessage.CONNECT):
            await circuit.send_hop_status(raw, pb.UNEXPECTED_MESSAGE)
        elif ask.type == pb.HopMessage.RESERVE:
            await self._reserve(raw)
        else:
            await self._connect(raw, ask)

    async def _reserve(self, raw: RawStream) -> None:
        full = len(self._reserved_until) >= self._limits.reservations_max and raw.peer not in self._reserved_until
        if self._nursery is None or full:
            await circuit.send_hop_status(raw, pb.RESERVATION_REFUSED)
            return
        known = raw.peer in self._reserved_until
        self._reserved_until[raw.peer] = trio.current_time() + self._limits.reservation_s
        if not known:
            self._nursery.start_soon(self._keep, raw.peer)
        expires_at = self._wall_clock() + self._limits.reservation_s
        here = [f"{address}/p2p/{self._transport.peer}" for address in self._addresses()]
        await circuit.send_hop_status(raw, pb.OK, self._limit(), circuit.reservation(expires_at, here))

    async def _keep(self, peer: PeerId) -> None:
        """Until the reservation has run out, or the connection it came by."""
        try:
            with self._transport.paths.holding(peer):
                while (left_s := self._reserved_until[peer] - trio.current_time()) > 0:
                    with trio.move_on_after(left_s):
                        await self._transport.paths.lost(peer)
                    if self._transport.paths.direct_address(peer) is None:
                        break
        finally:
            del self._reserved_until[peer]

    async def _connect(self, raw: RawStream, ask: pb.HopMessage) -> None:
        try:
            target = circuit.peer_of(ask.peer.id)
        except RemoteError:
            await circuit.send_hop_status(raw, pb.MALFORMED_MESSAGE)
            raise
        if target not in self._reserved_until or target == raw.peer:
            await circuit.send_hop_status(raw, pb.NO_RESERVATION)
            return
        ends = (raw.peer, target)
        if self.circuits >= self._limits.circuits_max or any(
            self._circuits[end] >= self._limits.circuits_per_peer_max for end in ends
        ):
            await circuit.send_hop_status(raw, pb.RESOURCE_LIMIT_EXCEEDED)
            return
        self._circuits.update(ends)
        try:
            with self._transport.paths.holding(raw.peer):
                await self._join(raw, target)
        finally:
            self._circuits.subtract(ends)
            self._circuits = +self._circuits

    async def _join(self, near: RawStream, target: PeerId) -> None:
        try:
            with trio.fail_after(ASK_S):
                far = await self._stop(near.peer, target)
        except (P2pfedError, trio.TooSlowError) as error:
            log.debug("no circuit from %s to %s: %s", near.peer, target, error)
            await circuit.send_hop_status(near, pb.CONNECTION_FAILED)
            return
        try:
            await circuit.send_hop_status(near, pb.OK, self._limit())
            with trio.move_on_after(self._limits.circuit_s):
                async with trio.open_nursery() as nursery:
                    # A connection ends as a whole: soon after one direction has ended, so does the other.
                    nursery.start_soon(self._carry, near, far, nursery.cancel_scope)
                    nursery.start_soon(self._carry, far, near, nursery.cancel_scope)
        finally:
            with trio.CancelScope(shield=True):
                await near.reset()
                await far.reset()

    async def _stop(self, source: PeerId, target: PeerId) -> RawStream:
        far = await self._transport.open_raw_standing(target, circuit.STOP, relayed=False)
        done = False
        try:
            peer = pb.PeerId(id=circuit.peer_bytes(source))
            ask = pb.StopMessage(type=pb.StopMessage.CONNECT, peer=peer, limit=self._limit())
            await far.write_message(ask.SerializeToString())
            answer = await circuit.read(far, pb.StopMessage)
            if answer.type != pb.StopMessage.STATUS or answer.status != pb.OK:
                raise TransportError(f"the far peer refused: {circuit.status_name(answer.status)}")
            done = True
            return far
        finally:
            if not done:
                with trio.CancelScope(shield=True):
                    await far.reset()

    async def _carry(self, source: RawStream, sink: RawStream, both: trio.CancelScope) -> None:
        left = self._limits.circuit_bytes_max
        with suppress(TransportError, RemoteError):
            while left > 0:
                began_at = trio.current_time()
                piece = await source.read_some(min(PIECE_BYTES, left))
                await sink.write(piece)
                left -= len(piece)
                self.bytes_relayed += len(piece)
                await trio.sleep_until(began_at + len(piece) / self._limits.circuit_bytes_per_s)
        with suppress(TransportError, RemoteError):
            await sink.close_write()  # last words arrive
        both.deadline = min(both.deadline, trio.current_time() + LINGER_S)

    def _limit(self) -> pb.Limit:
        return pb.Limit(duration=int(self._limits.circuit_s), data=self._limits.circuit_bytes_max)
