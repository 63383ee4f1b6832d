"""Messages for the wire's tests: one of each kind in full, and strategies that reach the bounds.

`python -m tests.wire.examples` writes their vectors anew, where the protocol was meant to change.
"""

import json
import string
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType

from hypothesis import strategies as st

from p2pfed.core import messages as m
from p2pfed.core.estimate import EPOCHS
from p2pfed.core.version import version_of
from p2pfed.ports import Encoding
from p2pfed.wire.codec import (
    FORMS,
    LEADER_MAX,
    TALLY_VALUE_MAX,
    TIME_S_MAX,
    VERSION_MAX,
    WEIGHT_MAX,
    encode,
)
from p2pfed.wire.fields import INTEGER_MAX

VECTORS = Path(__file__).parent / "vectors"
VERSION = version_of(bytes(range(256)) * 3, Encoding.INT4, steps=40, examples=80, mixes=9, part_size=256)
SMALL = version_of(b"p2pfed", Encoding.FLOAT32, steps=0, examples=0)
DIGEST = VERSION.digest
TALLY = m.Tally(
    epoch=3, leader=2**53 - 1, shares=(0.125, 2.5, 1.0, 64.0, 0.75, 0.0), own=(2.25, 1.0, 80.0, 0.5, 0.0625)
)
TERMS = m.Terms(settled=True, weight=1, tally=TALLY)
FIRST_TERMS = m.Terms(False, WEIGHT_MAX, m.Tally(0, 0, (1.0, *(0.0,) * 5), (0.0, 0.0, 0.0, 0.0, TALLY_VALUE_MAX)))
NODE = m.PeerId("12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")

EXAMPLES: Mapping[str, m.Message] = MappingProxyType(
    {
        "hello": m.Hello(
            version=2,
            network_id="0123456789abcdef",
            network=(("adapter.rank", "16"), ("name", '"lifts"')),
            fingerprint=(("base", "sha256:00ff"),),
            role=m.Role.NODE,
            encoding=Encoding.INT4,
            instance=7,
            name="shaft 3",
            addresses=("/ip4/192.0.2.7/tcp/4001",),
            time_s=1750000000.5,
        ),
        "hello-bootstrap": m.Hello(
            2, "0123456789abcdef", (), (), m.Role.BOOTSTRAP, Encoding.FLOAT32, INTEGER_MAX, "", (), 0.0
        ),
        "ping": m.Ping(nonce=0),
        "pong": m.Pong(nonce=INTEGER_MAX),
        "peers-ask": m.PeersAsk(count=8),
        "peers-told": m.PeersTold(peers=(m.PeerRecord(NODE, ("/dns4/a.example/tcp/4001", "/ip6/::1/tcp/1")),)),
        "goodbye": m.Goodbye(reason="stopped by its owner"),
        "identity-in-use": m.IdentityInUse(instance=9),
        "swap-offer": m.SwapOffer(swap=5, version=VERSION, terms=TERMS),
        "swap-accept": m.SwapAccept(swap=5, version=VERSION, terms=TERMS),
        "swap-offer-first": m.SwapOffer(swap=6, version=SMALL, terms=FIRST_TERMS),
        "swap-decline": m.SwapDecline(swap=5, reason=m.DeclineReason.NOT_READY, retry_after_s=2.5),
        "swap-decline-budget": m.SwapDecline(swap=5, reason=m.DeclineReason.BUDGET, retry_after_s=3600.0),
        "swap-ready": m.SwapReady(swap=5),
        "swap-commit": m.SwapCommit(swap=5),
        "swap-done": m.SwapDone(swap=5),
        "swap-abort": m.SwapAbort(swap=5, reason="stalled"),
        "version-ask": m.VersionAsk(encoding=Encoding.FLOAT16),
        "version-told": m.VersionTold(version=VERSION),
        "version-told-none": m.VersionTold(version=None),
        "part-ask": m.PartAsk(digest=DIGEST, indexes=(0, 2)),
        "part": m.Part(digest=DIGEST, index=1, data=b"\x00\x01\xff"),
        "part-missing": m.PartMissing(digest=DIGEST),
    }
)


def plain(value: object) -> object:
    """A message as the JSON of its vector: records as objects, bytes as "hex:..."."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, bytes):
        return "hex:" + value.hex()
    return [plain(each) for each in value] if isinstance(value, tuple) else value


integers = st.integers(0, INTEGER_MAX)
texts = st.text(st.characters(exclude_categories=("C", "Z")), max_size=m.TEXT_CHARS_MAX)
pairs = st.dictionaries(texts, texts, max_size=5).map(lambda pairs: tuple(sorted(pairs.items())))
digests = st.binary(min_size=32, max_size=32)
addresses = st.lists(st.text("abz09:/.-_%~", max_size=255).map(lambda text: "/" + text), max_size=m.ADDRESSES_MAX).map(
    tuple
)
peer_ids = st.text(string.ascii_letters + string.digits, min_size=1, max_size=64).map(m.PeerId)
encodings = st.sampled_from(Encoding)
versions = st.builds(
    version_of,
    st.binary(min_size=1, max_size=600),
    encodings,
    integers,
    integers,
    integers,
    part_size=st.integers(1, 256),
)
tally_values = st.floats(0.0, TALLY_VALUE_MAX)
tallies = st.builds(
    m.Tally,
    st.integers(0, EPOCHS - 1),
    st.integers(0, LEADER_MAX),
    st.tuples(*[tally_values] * (m.OWN_VALUES + 1)),
    st.tuples(*[tally_values] * m.OWN_VALUES),
)
terms = st.builds(m.Terms, st.booleans(), st.integers(1, WEIGHT_MAX), tallies)
HELLOS = st.builds(
    m.Hello,
    version=st.integers(1, VERSION_MAX),
    network_id=st.text("0123456789abcdef", min_size=1, max_size=64),
    network=pairs,
    fingerprint=pairs,
    role=st.sampled_from(m.Role),
    encoding=encodings,
    instance=integers,
    name=texts,
    addresses=addresses,
    time_s=st.floats(0, TIME_S_MAX),
)
SWAPS = st.one_of(
    st.builds(m.SwapOffer, integers, versions, terms),
    st.builds(m.SwapAccept, integers, versions, terms),
    st.builds(m.SwapDecline, integers, st.sampled_from(m.DeclineReason), st.floats(0, m.RETRY_AFTER_S_MAX)),
    st.builds(m.SwapReady, integers),
    st.builds(m.SwapCommit, integers),
    st.builds(m.SwapDone, integers),
    st.builds(m.SwapAbort, integers, texts),
)
PARTS = st.one_of(
    st.builds(m.VersionAsk, encodings),
    st.builds(m.VersionTold, st.none() | versions),
    st.builds(
        m.PartAsk,
        digests,
        st.lists(st.integers(0, m.PARTS_MAX - 1), min_size=1, max_size=16, unique=True).map(tuple),
    ),
    st.builds(m.Part, digests, st.integers(0, m.PARTS_MAX - 1), st.binary(min_size=1, max_size=2000)),
    st.builds(m.PartMissing, digests),
)
PEERS = st.one_of(
    st.builds(m.Ping, integers),
    st.builds(m.Pong, integers),
    st.builds(m.PeersAsk, st.integers(1, m.PEERS_TOLD_MAX)),
    st.builds(m.PeersTold, st.lists(st.builds(m.PeerRecord, peer_ids, addresses), max_size=4).map(tuple)),
    st.builds(m.Goodbye, texts),
    st.builds(m.IdentityInUse, integers),
)
MESSAGES = st.one_of(HELLOS, SWAPS, PARTS, PEERS)


def vector(message: m.Message) -> dict[str, object]:
    """What is kept of a message for other implementations."""
    tag = next(tag for tag, form in FORMS.items() if form.kind is type(message))
    return {"message": type(message).__name__, "tag": tag, "meaning": plain(message), "frame": encode(message).hex()}


if __name__ == "__main__":
    for name, message in EXAMPLES.items():
        (VECTORS / f"{name}.json").write_text(json.dumps(vector(message), indent=2, ensure_ascii=False) + "\n")
