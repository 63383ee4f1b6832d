"""Messages to frames and back: a frame is one msgpack array [tag, field, ...], see docs/protocol.md.

The table below is the whole format. Fields travel by position, in the order of the dataclass; a
message with a field too many or too few is refused, and so is every value out of its bounds.
`decode` gives a message or raises RemoteError, for any bytes at all.
"""

import string
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import msgpack

from p2pfed.core import messages as m
from p2pfed.core.estimate import EPOCHS, LEADER_BITS
from p2pfed.core.version import SIZE_MAX, version_problem
from p2pfed.errors import RemoteError
from p2pfed.ports import FRAME_BYTES_MAX, Encoding
from p2pfed.wire.fields import (
    Binary,
    Choice,
    Chunks,
    Field,
    Flag,
    Integer,
    Maybe,
    Number,
    Pairs,
    Record,
    Several,
    Text,
    Words,
    shown,
)

PEER_ID_CHARS_MAX = 64
"""A libp2p id of an Ed25519 key has 52 characters, of an RSA key 46."""
NETWORK_ID_CHARS_MAX = 64
"""16 today; a later protocol version may use a whole SHA-256 and must still be told what differs."""
VERSION_MAX = 65535
TIME_S_MAX = 2.0**53
"""Seconds since 1970 that a float still tells apart."""
WEIGHT_MAX = 2**40
"""Rows of data of one node: a trillion, so that sums over all peers stay far from the end of an integer."""
LEADER_MAX = 2**LEADER_BITS - 1
TALLY_VALUE_MAX = 1e300
"""Sums and means of a few such values stay finite."""
ARRAY_ELEMENTS_MAX = m.FIELDS_MAX
"""The longest array of any message; keeps what a parser allocates near what a frame holds."""
STRING_BYTES_MAX = 4 * m.TEXT_CHARS_MAX
"""UTF-8 takes at most 4 bytes a character."""

_ID_ALPHABET = frozenset(string.ascii_letters + string.digits + "-_")
_ADDRESS_ALPHABET = frozenset(string.ascii_letters + string.digits + string.punctuation)


class _VersionRecord(Record):
    """A version whose size, parts and digest also fit together."""

    def read_elements(self, name: str, wire: tuple[object, ...]) -> m.Version:
        version = cast(m.Version, Record.read_elements(self, name, wire))
        if problem := version_problem(version):
            raise RemoteError(f"{name}: {problem}")
        return version


_TEXT = Text(0, m.TEXT_CHARS_MAX)
_WORDS = Words(m.TEXT_CHARS_MAX)
_DIGEST = Binary(m.DIGEST_BYTES, m.DIGEST_BYTES)
_ADDRESSES = Several(Text(1, m.ADDRESS_CHARS_MAX, _ADDRESS_ALPHABET, start="/"), 0, m.ADDRESSES_MAX)
_PEER = Record(m.PeerRecord, {"peer": Text(1, PEER_ID_CHARS_MAX, _ID_ALPHABET), "addresses": _ADDRESSES})
_PART_INDEX = Integer(0, m.PARTS_MAX - 1)
_PAIRS = Pairs(m.FIELDS_MAX, _TEXT)
_ENCODING = Choice(Encoding)
_VERSION = _VersionRecord(
    m.Version,
    {
        "encoding": _ENCODING,
        "digest": _DIGEST,
        "size": Integer(1, SIZE_MAX),
        "part_size": Integer(1, m.PART_BYTES),
        "parts": Chunks(m.DIGEST_BYTES, 1, m.PARTS_MAX),
        "steps": Integer(),
        "examples": Integer(),
        "mixes": Integer(),
    },
)
_TALLY_VALUE = Number(0.0, TALLY_VALUE_MAX)
_TALLY = Record(
    m.Tally,
    {
        "epoch": Integer(0, EPOCHS - 1),
        "leader": Integer(0, LEADER_MAX),
        "shares": Several(_TALLY_VALUE, m.OWN_VALUES + 1, m.OWN_VALUES + 1),
        "own": Several(_TALLY_VALUE, m.OWN_VALUES, m.OWN_VALUES),
    },
)
_TERMS = Record(m.Terms, {"settled": Flag(), "weight": Integer(1, WEIGHT_MAX), "tally": _TALLY})
_SWAP: Mapping[str, Field] = {"swap": Integer()}
_HELLO: Mapping[str, Field] = {
    "version": Integer(1, VERSION_MAX),
    "network_id": Text(1, NETWORK_ID_CHARS_MAX, _ID_ALPHABET),
    "network": _PAIRS,
    "fingerprint": _PAIRS,
    "role": Choice(m.Role),
    "encoding": _ENCODING,
    "instance": Integer(),
    "name": _WORDS,
    "addresses": _ADDRESSES,
    "time_s": Number(0.0, TIME_S_MAX),
}

FORMS: Mapping[int, Record] = MappingProxyType(
    {
        1: Record(m.Hello, _HELLO),
        2: Record(m.Ping, {"nonce": Integer()}),
        3: Record(m.Pong, {"nonce": Integer()}),
        4: Record(m.PeersAsk, {"count": Integer(1, m.PEERS_TOLD_MAX)}),
        5: Record(m.PeersTold, {"peers": Several(_PEER, 0, m.PEERS_TOLD_MAX)}),
        6: Record(m.Goodbye, {"reason": _WORDS}),
        7: Record(m.IdentityInUse, {"instance": Integer()}),
        8: Record(m.SwapOffer, {**_SWAP, "version": _VERSION, "terms": _TERMS}),
        9: Record(m.SwapAccept, {**_SWAP, "version": _VERSION, "terms": _TERMS}),
        10: Record(
            m.SwapDecline,
            {**_SWAP, "reason": Choice(m.DeclineReason), "retry_after_s": Number(0.0, m.RETRY_AFTER_S_MAX)},
        ),
        11: Record(m.SwapReady, _SWAP),
        12: Record(m.SwapCommit, _SWAP),
        13: Record(m.SwapDone, _SWAP),
        14: Record(m.SwapAbort, {**_SWAP, "reason": _WORDS}),
        15: Record(m.VersionAsk, {"encoding": _ENCODING}),
        16: Record(m.VersionTold, {"version": Maybe(_VERSION)}),
        17: Record(
            m.PartAsk,
            {"digest": _DIGEST, "indexes": Several(_PART_INDEX, 1, m.PARTS_ASKED_MAX, distinct=True)},
        ),
        18: Record(m.Part, {"digest": _DIGEST, "index": _PART_INDEX, "data": Binary(1, m.PART_BYTES)}),
        19: Record(m.PartMissing, {"digest": _DIGEST}),
    }
)
"""Tag -> form. A tag is never used again for something else; a new message takes the next number."""

HELLO_TAG = 1
_TAGS: Mapping[type, int] = MappingProxyType({form.kind: tag for tag, form in FORMS.items()})


def encode(message: m.Message) -> bytes:
    """The frame of a message. Raises ValueError for one that no peer would take: a bug of the sender."""
    tag = _TAGS[type(message)]
    form = FORMS[tag]
    wire = cast(tuple[object, ...], form.write(message))
    try:
        form.read_elements(form.kind.__name__, wire)
    except RemoteError as error:
        raise ValueError(f"cannot send: {error}") from error
    return cast(bytes, msgpack.packb((tag, *wire), use_bin_type=True))


def decode(frame: bytes) -> m.Message:
    """The message of a frame. Raises RemoteError, and nothing else, for anything that is not one."""
    wire = _unpack(frame)
    if type(wire) is not tuple or not wire:
        raise RemoteError(f"frame is {shown(wire)}, not an array that starts with a tag")
    tag = wire[0]
    form = FORMS.get(tag) if type(tag) is int else None
    if form is None:
        raise RemoteError(f"unknown message tag {shown(tag)}")
    try:
        return cast(m.Message, form.read_elements(form.kind.__name__, wire[1:]))
    except RemoteError as error:
        spoken = wire[1] if tag == HELLO_TAG and len(wire) > 1 else m.PROTOCOL_VERSION
        if type(spoken) is int and spoken != m.PROTOCOL_VERSION:
            # Another version's Hello may look different; what its sender must be told is which version differs.
            raise RemoteError(f"peer speaks protocol version {spoken}, not {m.PROTOCOL_VERSION}") from error
        raise


def record_of(peer: object, addresses: tuple[object, ...]) -> m.PeerRecord:
    """A peer record from outside the protocol (a file, mDNS), held to the same bounds. Raises RemoteError."""
    return cast(m.PeerRecord, _PEER.read("peer", (peer, addresses)))


def _unpack(frame: bytes) -> Any:
    if len(frame) > FRAME_BYTES_MAX:
        raise RemoteError(f"frame of {len(frame)} bytes, more than {FRAME_BYTES_MAX}")
    try:
        return msgpack.unpackb(
            frame,
            raw=False,
            use_list=False,
            strict_map_key=True,
            max_str_len=STRING_BYTES_MAX,
            max_bin_len=m.PART_BYTES,
            max_array_len=ARRAY_ELEMENTS_MAX,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        # The parser's own words may quote the frame at length; its type says enough.
        raise RemoteError(f"frame of {len(frame)} bytes is not valid msgpack ({type(error).__name__})") from error
