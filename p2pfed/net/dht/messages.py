"""The DHT's messages: libp2p's protobuf to and from our records, with every bound (libp2p specs, kad-dht).

Of a message only what we use is taken: type, key, and peers with the addresses we could dial. The rest is ignored, as
the specification wants; what is malformed is an error of its sender.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from p2pfed.net import hardening  # noqa: F401  before libp2p: it leaves out parts of it

# isort: split
from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb import kademlia_pb2

from p2pfed.core.messages import PeerRecord
from p2pfed.errors import ConfigError, RemoteError
from p2pfed.net.address import base58_decode, base58_encode, parse_peer
from p2pfed.net.binary_address import ADDRESSES_READ_MAX, address_bytes, addresses_of
from p2pfed.net.dht.key import KEY_BYTES_MAX

PEERS_MAX = 20
"""Peers of one list of a message that are looked at, and sent."""


class Kind(IntEnum):
    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


@dataclass(frozen=True, slots=True)
class DhtMessage:
    kind: Kind
    key: bytes = b""
    closer: tuple[PeerRecord, ...] = ()
    """DHT servers nearer to the key."""
    providers: tuple[PeerRecord, ...] = ()


def encode(message: DhtMessage) -> bytes:
    told: Any = kademlia_pb2.Message(key=message.key)
    told.type = int(message.kind)
    _fill(told.closerPeers, message.closer)
    _fill(told.providerPeers, message.providers)
    data: bytes = told.SerializeToString()
    return data


def decode(data: bytes) -> DhtMessage:
    """`data` was capped by whoever read it. Raises RemoteError."""
    told: Any = kademlia_pb2.Message()
    try:
        told.ParseFromString(data)
        kind = Kind(told.type)
    except (DecodeError, ValueError) as error:
        raise RemoteError(f"not a message of the DHT: {error}") from error
    if len(told.key) > KEY_BYTES_MAX:
        raise RemoteError(f"key of {len(told.key)} bytes, more than {KEY_BYTES_MAX}")
    return DhtMessage(kind, bytes(told.key), _records(told.closerPeers), _records(told.providerPeers))


def _records(peers: Any) -> tuple[PeerRecord, ...]:
    records = []
    for each in list(peers[:PEERS_MAX]):
        try:
            peer = parse_peer(base58_encode(bytes(each.id)) if len(each.id) <= KEY_BYTES_MAX else "")
        except ConfigError:
            continue  # of a kind of key we do not know
        records.append(PeerRecord(peer, addresses_of(list(each.addrs[:ADDRESSES_READ_MAX]), peer)))
    return tuple(records)


def _fill(peers: Any, records: tuple[PeerRecord, ...]) -> None:
    for record in records[:PEERS_MAX]:
        each = peers.add()
        each.id = base58_decode(record.peer)
        each.addrs.extend(raw for raw in map(address_bytes, record.addresses) if raw is not None)
