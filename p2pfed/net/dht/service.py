"""The DHT of one transport: answers as a server where it is one, and searches and registers as a client.

Every stream has a limit of time. A connection that a search opened is closed after it, unless somebody else uses it.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from p2pfed.core.messages import PeerRecord
from p2pfed.errors import P2pfedError, RemoteError, TransportError
from p2pfed.net.address import base58_decode
from p2pfed.net.dht.key import place_of
from p2pfed.net.dht.lookup import Lookup
from p2pfed.net.dht.messages import DhtMessage, Kind, decode, encode
from p2pfed.net.dht.providers import ProviderStore
from p2pfed.net.dht.server import KAD_PROTOCOL, DhtServer
from p2pfed.net.dht.table import RoutingTable
from p2pfed.net.identify import IDENTIFY_S, identify
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId

ASK_S = 12.0
"""One question to one server, dial included: the transport gives a dial 10 s."""
ROUND_S = 90.0
"""A whole search and the registrations after it; what is not reached by then is left for the next."""
FINISH_S = 3.0
"""For a server to have read a registration."""
CHECKS_AT_ONCE = 4
CHECKED_MAX = 1024
CHECK_AGAIN_S = 600.0
"""Whether an unknown asker is a server itself is asked so often at most."""


class RawTransport(Protocol):
    """What of `net.libp2p.Libp2pTransport` the DHT needs."""

    @property
    def peer(self) -> PeerId: ...
    def serve_raw(self, protocol: str, handler: Callable[[RawStream], Awaitable[None]]) -> None: ...
    async def open_raw(self, peer: PeerId | None, address: str, protocol: str) -> RawStream: ...
    def connected(self, peer: PeerId) -> bool: ...
    def release(self, peer: PeerId) -> None: ...


class Dht:
    """A client, and a server too from `serve` on."""

    def __init__(self, transport: RawTransport, rng: random.Random) -> None:
        self._transport = transport
        self.serving = trio.Event()
        self.table = RoutingTable(transport.peer)
        self.providers = ProviderStore(rng)
        self._server = DhtServer(self.table, self.providers)
        self._opened: dict[PeerId, None] = {}
        """Peers connected to for a search, in order."""
        self._checked: dict[PeerId, float] = {}
        self._checks = trio.CapacityLimiter(CHECKS_AT_ONCE)

    @property
    def serves(self) -> bool:
        return self.serving.is_set()

    def serve(self) -> None:
        """From now on, at any time: right for a peer that others can dial. There is no way back."""
        if not self.serves:
            self._transport.serve_raw(KAD_PROTOCOL, self._serve)
            self.serving.set()

    async def find(self, key: bytes, provide: Sequence[str] = ()) -> list[PeerRecord]:
        """Providers of a key, oneself not. With own addresses given, register as one at the nearest servers too."""
        found: dict[PeerId, PeerRecord] = {}
        with trio.move_on_after(ROUND_S):
            try:
                servers = await self._search(key, Kind.GET_PROVIDERS, found)
                if provide:
                    await self._register(servers, key, tuple(provide))
            finally:
                self._let_go()
        found.pop(self._transport.peer, None)
        return list(found.values())

    async def refresh(self, since: float) -> None:
        """Ask the servers that have not answered since, and those they tell of, for servers near to oneself."""
        if self.table.unheard(since):
            with trio.move_on_after(ROUND_S):
                try:
                    await self._search(base58_decode(self._transport.peer), Kind.FIND_NODE, {})
                finally:
                    self._let_go()

    async def _search(self, key: bytes, kind: Kind, found: dict[PeerId, PeerRecord]) -> list[PeerRecord]:
        """Servers nearest to the key, all of which answered; providers they told go into `found`."""
        place = place_of(key)
        lookup = Lookup(self._transport.peer, place, self.table.closest(place, len(self.table)))
        more = trio.Event()

        async def ask(server: PeerRecord) -> None:
            nonlocal more
            answer = await self._ask(server, DhtMessage(kind, key))
            if answer is None:
                lookup.failed(server.peer)
            else:
                for record in answer.closer:
                    self.table.hear(record.peer, record.addresses)
                lookup.answered(server.peer, list(answer.closer))
                for record in answer.providers:
                    found.setdefault(record.peer, record)
            more.set()

        async with trio.open_nursery() as nursery:
            while not lookup.over:
                while (server := lookup.next()) is not None:
                    nursery.start_soon(ask, server)
                await more.wait()
                more = trio.Event()
        return lookup.found()

    async def _register(self, servers: list[PeerRecord], key: bytes, addresses: tuple[str, ...]) -> None:
        own = PeerRecord(self._transport.peer, addresses)
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(self._ask, server, DhtMessage(Kind.ADD_PROVIDER, key, providers=(own,)))

    async def _ask(self, server: PeerRecord, message: DhtMessage) -> DhtMessage | None:
        """The answer, an empty one where the protocol has none; None where no address of the server gave it."""
        for address in server.addresses:
            try:
                with trio.fail_after(ASK_S):
                    answer = await self._ask_at(server.peer, address, message)
            except (P2pfedError, trio.TooSlowError):
                continue
            self.table.hear(server.peer, server.addresses)
            self.table.answered(server.peer, address, trio.current_time())
            return answer
        self.table.failed(server.peer)
        return None

    async def _ask_at(self, peer: PeerId, address: str, message: DhtMessage) -> DhtMessage:
        if not self._transport.connected(peer):
            self._opened[peer] = None
        stream = await self._transport.open_raw(peer, address, KAD_PROTOCOL)
        try:
            await stream.write_message(encode(message))
            await stream.close_write()
            if message.kind is Kind.ADD_PROVIDER:
                await _end_of(stream)
                return DhtMessage(message.kind)
            answer = decode(await stream.read_message())
            if answer.kind is not message.kind:
                raise RemoteError(f"{answer.kind.name} in answer to {message.kind.name}")
            return answer
        finally:
            await stream.reset()

    def _let_go(self) -> None:
        """What cannot be closed yet, because somebody uses it, is tried again after the next search."""
        for peer in list(self._opened):
            if self._transport.connected(peer):
                self._transport.release(peer)
            else:
                del self._opened[peer]

    async def _serve(self, stream: RawStream) -> None:
        async with trio.open_nursery() as nursery:

            def heard(asker: RawStream) -> None:
                if self._worth_checking(asker.peer):
                    nursery.start_soon(self._check, asker)

            await self._server.serve(stream, heard)

    def _worth_checking(self, peer: PeerId) -> bool:
        now = trio.current_time()
        if self.table.get(peer) is not None or now - self._checked.get(peer, -CHECK_AGAIN_S) < CHECK_AGAIN_S:
            return False
        if self._checks.available_tokens < 1:
            return False
        self._checked.pop(peer, None)
        self._checked[peer] = now
        while len(self._checked) > CHECKED_MAX:
            del self._checked[next(iter(self._checked))]
        return True

    async def _check(self, asker: RawStream) -> None:
        """Ask the asker over its own connection what it serves: a server gets into the routing table."""
        async with self._checks:
            with trio.move_on_after(IDENTIFY_S):
                try:
                    told = await identify(self._transport, asker.peer, asker.address)
                except P2pfedError:
                    return
                if KAD_PROTOCOL in told.protocols and self.table.hear(asker.peer, told.addresses):
                    self.table.answered(asker.peer, None, trio.current_time())


async def _end_of(stream: RawStream) -> None:
    """Until the other side has read all and closed."""
    with trio.move_on_after(FINISH_S):
        try:
            while True:
                await stream.read_some()
        except TransportError:
            pass
