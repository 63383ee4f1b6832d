"""What a DHT server answers. `answer` is pure; `serve` reads questions from a stream and writes answers.

Values are not kept for anybody: GET_VALUE and PUT_VALUE get a polite answer without a record.
"""

from collections.abc import Callable

import trio

from p2pfed.core.messages import PeerRecord
from p2pfed.errors import ConfigError, TransportError
from p2pfed.net.address import base58_encode, parse_peer
from p2pfed.net.dht.key import place_of
from p2pfed.net.dht.messages import PEERS_MAX, DhtMessage, Kind, decode, encode
from p2pfed.net.dht.providers import ProviderStore
from p2pfed.net.dht.table import RoutingTable
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId

KAD_PROTOCOL = "/ipfs/kad/1.0.0"
REQUESTS_MAX = 64
"""On one stream: others keep one open for a whole search; more is a flood."""
QUIET_S = 30.0
"""Between two questions; then the stream ends."""


class DhtServer:
    def __init__(self, table: RoutingTable, providers: ProviderStore) -> None:
        self.table = table
        self.providers = providers

    def answer(self, asked: DhtMessage, sender: PeerId, now: float) -> DhtMessage | None:
        """None where the protocol has no answer."""
        match asked.kind:
            case Kind.ADD_PROVIDER:
                for record in asked.providers:
                    if record.peer == sender and record.addresses:  # nobody registers anybody else
                        self.providers.add(asked.key, sender, record.addresses, now)
                return None
            case Kind.GET_PROVIDERS:
                providers = self.providers.of(asked.key, PEERS_MAX, now)
                return DhtMessage(asked.kind, asked.key, self._closer(asked.key, sender), tuple(providers))
            case Kind.FIND_NODE:
                return DhtMessage(
                    asked.kind, asked.key, (*self._sought(asked.key, now), *self._closer(asked.key, sender))
                )
            case Kind.PING:
                return DhtMessage(Kind.PING)
            case Kind.GET_VALUE | Kind.PUT_VALUE:
                return DhtMessage(asked.kind, asked.key, self._closer(asked.key, sender))

    async def serve(self, stream: RawStream, heard: Callable[[RawStream], None]) -> None:
        """Until the other side ends it. `heard` is told of every stream that asked something."""
        for number in range(REQUESTS_MAX):
            asked: DhtMessage | None = None
            with trio.move_on_after(QUIET_S):
                try:
                    data = await stream.read_message()
                except TransportError:
                    return  # it has asked all it wanted
                asked = decode(data)
            if asked is None:
                return
            if number == 0:
                heard(stream)
            answer = self.answer(asked, stream.peer, trio.current_time())
            if answer is not None:
                with trio.fail_after(QUIET_S):
                    await stream.write_message(encode(answer))

    def _closer(self, key: bytes, sender: PeerId) -> tuple[PeerRecord, ...]:
        records = self.table.proven(place_of(key), PEERS_MAX + 1)
        return tuple(each for each in records if each.peer != sender)[:PEERS_MAX]

    def _sought(self, key: bytes, now: float) -> tuple[PeerRecord, ...]:
        """The very peer whose id is the key, where it provides something here."""
        try:
            found = self.providers.find(parse_peer(base58_encode(key)), now)
        except ConfigError:
            return ()
        return (found,) if found is not None else ()
