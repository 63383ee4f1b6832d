"""Keeps this device reachable through relays: reserves with a few, renews, and takes the circuits they bring.

A relay is asked only while `wanted`. A reservation counts as long as the connection it was made on: when that is lost
(the relay was replaced, the line broke) it is made anew. A circuit is taken only from a relay that holds one.
"""

import logging
import random
from collections.abc import Callable, Sequence

import trio

from p2pfed.errors import P2pfedError, RemoteError, TransportError
from p2pfed.net import circuit
from p2pfed.net.address import CIRCUIT
from p2pfed.net.circuit import pb
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.paths import limit
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId

log = logging.getLogger("p2pfed.net")

RELAYS_MAX = 2
"""One may die without anybody losing the way here."""
RENEW_MAX_S = 900.0
RENEW_MIN_S = 10.0
"""A relay whose clock is off says strange things of when a reservation ends."""
RETRY_FIRST_S = 2.0
RETRY_MAX_S = 120.0
ASK_S = 10.0

Relay = tuple[PeerId, str]


class RelayClient:
    """Make it before the transport runs. `relays`: who may be asked, in any number; `on_change` when addresses do.

    `on_circuit` is told of a peer that came by a circuit, once that stands.
    """

    def __init__(
        self,
        transport: Libp2pTransport,
        relays: Callable[[], Sequence[Relay]],
        *,
        wall_clock: Callable[[], float],
        rng: random.Random,
        on_change: Callable[[], None] = lambda: None,
        on_circuit: Callable[[PeerId], None] = lambda peer: None,
    ) -> None:
        self._transport = transport
        self._relays = relays
        self._wall_clock = wall_clock
        self._rng = rng
        self._on_change = on_change
        self._on_circuit = on_circuit
        self._wanted = trio.Event()
        self._granted: dict[PeerId, str] = {}
        self._trying: set[PeerId] = set()
        transport.serve_raw(circuit.STOP, self._on_stop)

    def want(self, wanted: bool) -> None:
        """Reservations are asked for, or no more. Those that stand run out by themselves."""
        if wanted:
            self._wanted.set()
        elif self._wanted.is_set():
            self._wanted = trio.Event()

    @property
    def relays(self) -> tuple[Relay, ...]:
        """Those that hold a reservation now."""
        return tuple(self._granted.items())

    def addresses(self) -> tuple[str, ...]:
        """The circuit addresses that lead here."""
        return tuple(f"{address}/p2p/{relay}/{CIRCUIT}" for relay, address in self._granted.items())

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(RELAYS_MAX):
                nursery.start_soon(self._keep_one)

    async def _keep_one(self) -> None:
        retry_s = RETRY_FIRST_S
        while True:
            await self._wanted.wait()
            choice = self._choose()
            if choice is None:
                await trio.sleep(retry_s)
                retry_s = min(RETRY_MAX_S, 2 * retry_s)
                continue
            self._trying.add(choice[0])
            began_at = trio.current_time()
            try:
                await self._keep(*choice)
            except P2pfedError as error:
                log.debug("no reservation with %s: %s", choice[0], error)
            finally:
                self._trying.discard(choice[0])
            if trio.current_time() - began_at > RETRY_MAX_S:
                retry_s = RETRY_FIRST_S
            await trio.sleep(retry_s * self._rng.uniform(0.5, 1.0))
            retry_s = min(RETRY_MAX_S, 2 * retry_s)

    def _choose(self) -> Relay | None:
        free = [relay for relay in self._relays() if relay[0] not in self._trying and relay[0] != self._transport.peer]
        return self._rng.choice(free) if free else None

    async def _keep(self, relay: PeerId, address: str) -> None:
        """Reserve and renew, until that fails, the connection is lost, or nobody wants it any more."""
        try:
            with self._transport.paths.holding(relay):
                while self._wanted.is_set():
                    raw = await self._transport.open_raw(relay, address, circuit.HOP)
                    try:
                        reservation = await circuit.ask_reservation(raw)
                    finally:
                        await raw.aclose()
                    if relay not in self._granted:
                        self._granted[relay] = address
                        self._on_change()
                    left_s = reservation.expires_at - self._wall_clock()
                    with trio.move_on_after(min(RENEW_MAX_S, max(RENEW_MIN_S, left_s / 2))) as renew:
                        await self._transport.paths.lost(relay)
                    if not renew.cancelled_caught:
                        raise TransportError("the connection to the relay was lost")
        finally:
            if self._granted.pop(relay, None) is not None:
                self._on_change()

    async def _on_stop(self, raw: RawStream) -> None:
        if raw.peer not in self._granted:
            await circuit.send_stop_status(raw, pb.PERMISSION_DENIED)
            return
        with limit(ASK_S, f"no request within {ASK_S:.0f} s"):
            ask = await circuit.read(raw, pb.StopMessage)
        if ask.type != pb.StopMessage.CONNECT:
            await circuit.send_stop_status(raw, pb.UNEXPECTED_MESSAGE)
            return
        try:
            source = circuit.peer_of(ask.peer.id)
        except RemoteError:
            await circuit.send_stop_status(raw, pb.MALFORMED_MESSAGE)
            raise
        await circuit.send_stop_status(raw, pb.OK)
        await self._transport.paths.accept_circuit(raw, source, self._on_circuit)
