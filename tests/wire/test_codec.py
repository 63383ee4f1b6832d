"""The codec: what it writes it reads, what it refuses it names, and nothing else ever escapes."""

import json
import random
import typing
from dataclasses import fields, replace

import msgpack
import pytest
from hypothesis import given, settings

from p2pfed.core import messages as m
from p2pfed.core.version import SIZE_MAX, version_of
from p2pfed.errors import RemoteError
from p2pfed.ports import FRAME_BYTES_MAX, Encoding
from p2pfed.wire.codec import FORMS, LEADER_MAX, TALLY_VALUE_MAX, WEIGHT_MAX, decode, encode
from tests.wire.examples import DIGEST, EXAMPLES, MESSAGES, NODE, TERMS, VECTORS, VERSION, vector


def frame(*elements: object) -> bytes:
    packed = msgpack.packb(elements, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def wire_of(name: str) -> list[object]:
    return list(msgpack.unpackb(encode(EXAMPLES[name]), use_list=False))


def refused(data: bytes) -> str:
    with pytest.raises(RemoteError) as caught:
        decode(data)
    return str(caught.value)


def refused_with(name: str, index: int, value: object) -> str:
    """The example with one element (0 is the tag) replaced."""
    wire = wire_of(name)
    wire[index] = value
    return refused(frame(*wire))


@settings(max_examples=400, deadline=None)
@given(MESSAGES)
def test_round_trip(message: m.Message) -> None:
    assert decode(encode(message)) == message


def test_the_table_holds_every_message_and_every_field_in_order() -> None:
    assert {form.kind for form in FORMS.values()} == set(typing.get_args(m.Message))
    for form in FORMS.values():
        assert list(form.fields) == [field.name for field in fields(form.kind)]


def test_the_largest_frames_fit() -> None:
    peer = m.PeerRecord(NODE, ("/" + "a" * 255,) * m.ADDRESSES_MAX)
    told = m.PeersTold((peer,) * m.PEERS_TOLD_MAX)
    part = m.Part(DIGEST, m.PARTS_MAX - 1, bytes(m.PART_BYTES))
    largest = version_of(bytes(m.PARTS_MAX), Encoding.INT8, steps=1, examples=1, part_size=1)
    hello = replace(EXAMPLES["hello"], network=tuple((f"{at:02}" + "x" * 254, "y" * 256) for at in range(m.FIELDS_MAX)))
    for message in (part, told, m.SwapOffer(1, largest, TERMS), hello):
        assert len(encode(message)) <= FRAME_BYTES_MAX
        assert decode(encode(message)) == message


# One test a defect


def test_frame_over_the_cap_is_not_parsed() -> None:
    assert refused(bytes(FRAME_BYTES_MAX + 1)) == f"frame of {FRAME_BYTES_MAX + 1} bytes, more than {FRAME_BYTES_MAX}"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91", b"\x92\x02", b"\x91\x0f\x00", b"\x93\x04\xc1\x00"])
def test_not_msgpack_or_truncated_or_with_a_tail(data: bytes) -> None:
    assert "is not valid msgpack" in refused(data)


@pytest.mark.parametrize("value", [0, None, "x", b"x", {}, (), 1.5, True])
def test_not_an_array_with_a_tag(value: object) -> None:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    assert "not an array that starts with a tag" in refused(packed)


@pytest.mark.parametrize("tag", [0, 20, -1, 2**64 - 1, None, "1", 1.0, True, (2,)])
def test_unknown_tag(tag: object) -> None:
    assert "unknown message tag" in refused(frame(tag, 1))


def test_a_field_too_many_or_too_few() -> None:
    for name in EXAMPLES:
        wire = wire_of(name)
        assert "fields, not" in refused(frame(*wire, 1))
        if len(wire) > 1:
            assert "fields, not" in refused(frame(*wire[:-1]))


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, b"1", (1,)])
def test_an_integer_of_another_type(value: object) -> None:
    assert "Ping.nonce is" in refused_with("ping", 1, value)


@pytest.mark.parametrize("value", [-1, 2**63, 2**64 - 1, -(2**63)])
def test_an_integer_out_of_range(value: int) -> None:
    assert refused_with("ping", 1, value) == f"Ping.nonce is {value}, not within 0 to {2**63 - 1}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1, True, "1.0", None])
def test_a_float_that_is_none(value: object) -> None:
    assert "retry_after_s is" in refused_with("swap-decline", 3, value)
    assert "not a finite float" in refused_with("hello", 10, value)


def test_a_float_out_of_range() -> None:
    assert "not within 0.0 to 3600.0" in refused_with("swap-decline", 3, 3601.0)
    assert "not within" in refused_with("hello", 10, -1.0)


def test_text_of_another_type_length_or_with_control_characters() -> None:
    assert "not text" in refused_with("goodbye", 1, b"bytes")
    assert "257 characters, not 0 to 256" in refused_with("goodbye", 1, "x" * 257)
    assert "not valid msgpack" in refused_with("goodbye", 1, "x" * 1025)
    assert "not printable" in refused_with("goodbye", 1, "\x1b[2J")
    assert "not printable" in refused_with("goodbye", 1, "a\nb")
    assert "not printable" in refused_with("goodbye", 1, "right-to-left \u202e")
    assert "not valid msgpack" in refused(b"\x92\x06\xa2\xff\xfe")


def test_an_enum_with_an_unknown_value() -> None:
    assert refused_with("hello", 5, "king") == "Hello.role is 'king', not one of node, bootstrap, observer"
    assert "not one of busy" in refused_with("swap-decline", 2, 1)


def test_pairs_that_are_not_sorted_or_double_or_no_pairs() -> None:
    assert "not sorted" in refused_with("hello", 3, (("b", "1"), ("a", "1")))
    assert "not sorted" in refused_with("hello", 3, (("a", "1"), ("a", "1")))
    assert "not a pair" in refused_with("hello", 3, (("a",),))
    assert "not a pair" in refused_with("hello", 3, ("ab",))
    assert "not an array" in refused_with("hello", 4, "ab")
    assert "not text" in refused_with("hello", 4, (("a", 1),))
    assert "65" not in refused_with("hello", 4, tuple((f"{at:03}", "") for at in range(65)))  # the parser's own limit


def test_addresses_and_peers_past_their_bounds() -> None:
    assert "17 elements, not 0 to 16" in refused_with("hello", 9, ("/a",) * 17)
    assert "does not start with '/'" in refused_with("hello", 9, ("ip4",))
    assert "may not be there" in refused_with("hello", 9, ("/a b",))
    assert "may not be there" in refused_with("hello", 9, ("/é",))
    assert "257 characters, not 1 to 256" in refused_with("hello", 9, ("/" * 257,))
    assert "33 elements, not 0 to 32" in refused_with("peers-told", 1, ((NODE, ()),) * 33)
    assert "3 fields, not 2" in refused_with("peers-told", 1, ((NODE, (), 1),))
    assert "not an array" in refused_with("peers-told", 1, (NODE,))
    assert "65 characters, not 1 to 64" in refused_with("peers-told", 1, (("x" * 65, ()),))
    assert "may not be there" in refused_with("peers-told", 1, (("../../etc", ()),))
    assert "may not be there" in refused_with("hello", 2, "a/b")
    assert "not within 1 to 32" in refused_with("peers-ask", 1, 0)
    assert "not within 1 to 32" in refused_with("peers-ask", 1, 33)


def version_wire(**changes: object) -> tuple[object, ...]:
    values = {field.name: getattr(VERSION, field.name) for field in fields(VERSION)}
    values["parts"] = b"".join(VERSION.parts)
    values["encoding"] = str(VERSION.encoding)
    return tuple((values | changes).values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"digest": bytes(32)}, "digest 0000000000000000 does not match"),
        ({"digest": bytes(31)}, "31 bytes, not 32 to 32"),
        ({"size": 767}, "does not match"),
        ({"size": 769}, "version of 769 bytes with 3 part hashes, not 4"),
        ({"size": 512}, "with 3 part hashes, not 2"),
        ({"size": 0}, "not within 1 to"),
        ({"size": SIZE_MAX + 1}, "not within 1 to"),
        ({"size": SIZE_MAX, "part_size": 1}, "parts, more than 4096"),
        ({"part_size": 0}, "not within 1 to"),
        ({"part_size": m.PART_BYTES + 1}, "not within 1 to"),
        ({"part_size": 257}, "does not match"),
        ({"parts": b""}, "0 bytes, not 32 to"),
        ({"parts": bytes(97)}, "97 bytes, not a multiple of 32"),
        ({"parts": bytes(96)}, "does not match"),
        ({"parts": (bytes(32),) * 3}, "not bytes"),
        ({"parts": bytes(32 * 4097)}, "131104 bytes, not 32 to 131072"),
        ({"steps": -1}, "steps is -1"),
        ({"examples": True}, "examples is True"),
        ({"mixes": -1}, "mixes is -1"),
        ({"mixes": 2**63}, "mixes is 9223372036854775808"),
        ({"encoding": "int2"}, "encoding is 'int2', not one of int4, int8, float16, float32"),
        ({"encoding": 4}, "encoding is 4, not one of"),
    ],
    ids=str,
)
def test_versions_that_do_not_fit_together(changes: dict[str, object], words: str) -> None:
    assert words in refused_with("swap-offer", 2, version_wire(**changes))
    assert words in refused_with("version-told", 1, version_wire(**changes))


def test_a_version_where_there_must_be_one() -> None:
    assert "not an array" in refused_with("swap-accept", 2, None)
    assert "6 fields, not 8" in refused_with("swap-accept", 2, version_wire()[:6])


def tally_wire(**changes: object) -> tuple[object, ...]:
    values = {field.name: getattr(TERMS.tally, field.name) for field in fields(TERMS.tally)}
    return tuple((values | changes).values())


def terms_wire(**changes: object) -> tuple[object, ...]:
    return tuple(({"settled": True, "weight": 1, "tally": tally_wire()} | changes).values())


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (None, "terms is None, not an array"),
        (terms_wire()[:2], "terms has 2 fields, not 3"),
        ((*terms_wire(), 1), "terms has 4 fields, not 3"),
        (terms_wire(settled=1), "settled is 1, not true or false"),
        (terms_wire(settled=None), "settled is None, not true or false"),
        (terms_wire(weight=0), f"weight is 0, not within 1 to {WEIGHT_MAX}"),
        (terms_wire(weight=WEIGHT_MAX + 1), "not within 1 to"),
        (terms_wire(weight=1.0), "weight is 1.0, not an integer"),
        (terms_wire(tally=()), "tally has 0 fields, not 4"),
        (terms_wire(tally=tally_wire(epoch=2**32)), "epoch is 4294967296"),
        (terms_wire(tally=tally_wire(leader=LEADER_MAX + 1)), "leader is"),
        (terms_wire(tally=tally_wire(leader=-1)), "leader is -1"),
        (terms_wire(tally=tally_wire(shares=(0.0,) * 5)), "shares has 5 elements, not 6 to 6"),
        (terms_wire(tally=tally_wire(shares=(0.0,) * 7)), "shares has 7 elements, not 6 to 6"),
        (terms_wire(tally=tally_wire(own=(0.0,) * 4)), "own has 4 elements, not 5 to 5"),
        (terms_wire(tally=tally_wire(own=(0.0,) * 6)), "own has 6 elements, not 5 to 5"),
        (terms_wire(tally=tally_wire(own=(0.0, 0.0, 0.0, 0.0, -0.5))), "own is -0.5, not within"),
        (terms_wire(tally=tally_wire(own=(0.0, 0.0, 0.0, 0.0, float("inf")))), "own is inf, not a finite float"),
        (terms_wire(tally=tally_wire(own=(0.0, 0.0, 0.0, 0.0, float("nan")))), "own is nan, not a finite float"),
        (terms_wire(tally=tally_wire(own=(0.0, 0.0, 0.0, 0.0, 10 * TALLY_VALUE_MAX))), "own is 1e+301, not within"),
        (terms_wire(tally=tally_wire(shares=(0, 0.0, 0.0, 0.0, 0.0, 0.0))), "shares is 0, not a finite float"),
    ],
)
def test_terms_out_of_form(wire: object, words: str) -> None:
    assert words in refused_with("swap-offer", 3, wire)
    assert words in refused_with("swap-accept", 3, wire)


def test_terms_that_nobody_would_take_are_not_sent() -> None:
    for tally in (replace(TERMS.tally, shares=(float("nan"),) * 6), replace(TERMS.tally, own=(0.0,) * 3)):
        with pytest.raises(ValueError, match="cannot send"):
            encode(m.SwapOffer(1, VERSION, replace(TERMS, tally=tally)))


def test_an_encoding_that_is_none() -> None:
    assert refused_with("hello", 6, "int2") == "Hello.encoding is 'int2', not one of int4, int8, float16, float32"
    assert "VersionAsk.encoding is None" in refused_with("version-ask", 1, None)
    assert "VersionAsk has 0 fields, not 1" in refused(frame(15))


def test_parts_past_their_bounds() -> None:
    assert "not within 0 to 4095" in refused_with("part", 2, 4096)
    assert "0 bytes, not 1 to 262144" in refused_with("part", 3, b"")
    assert "not valid msgpack" in refused_with("part", 3, bytes(m.PART_BYTES + 1))
    assert "not bytes" in refused_with("part", 3, "text")
    assert "0 elements, not 1 to 16" in refused_with("part-ask", 2, ())
    assert "17 elements, not 1 to 16" in refused_with("part-ask", 2, tuple(range(17)))
    assert "an element twice" in refused_with("part-ask", 2, (1, 1))
    assert "not within 0 to 4095" in refused_with("part-ask", 2, (4096,))


def test_a_hello_of_another_protocol_is_told_the_version() -> None:
    assert refused(frame(1, 3, "another", "shape")) == "peer speaks protocol version 3, not 2"
    first = frame(1, 1, "0123456789abcdef", (), (), "node", 7, "", (), 0.0)  # the whole form of version 1
    assert refused(first) == "peer speaks protocol version 1, not 2"
    for version in (1, 3):
        same_shape = decode(frame(1, version, *wire_of("hello")[2:]))
        assert isinstance(same_shape, m.Hello)
        assert same_shape.version == version
    assert "fields, not 10" in refused(frame(1, 2, "another", "shape"))


def test_maps_extensions_and_huge_claims_are_refused_by_the_parser() -> None:
    claims = [b"\x92\x06\x81\xa1a\x01", b"\x92\x06\xd4\x05\x00", b"\x92\x06\xd6\xff\x00\x00\x00\x00"]
    claims += [b"\xdd\xff\xff\xff\xff", b"\x92\x06\xdb\xff\xff\xff\xff", b"\x92\x06\xc6\xff\xff\xff\xff"]
    claims += [b"\x92\x06\xdf\xff\xff\xff\xff", b"\x91" * 500_000, b"\xdc\x00\x40" * 100_000, b"\x81" * 2000]
    for claim in claims:
        assert "is not valid msgpack" in refused(claim)


def test_errors_show_little_of_a_strangers_value() -> None:
    assert len(refused_with("ping", 1, "x" * 1000)) < 120
    assert len(refused_with("ping", 1, bytes(200_000))) < 120
    assert len(refused_with("ping", 1, (("x" * 1000,) * 60,) * 60)) < 120


def test_sending_what_no_peer_would_take_is_a_bug_here() -> None:
    with pytest.raises(ValueError, match=r"cannot send: Ping\.nonce is -1"):
        encode(m.Ping(-1))
    with pytest.raises(ValueError, match="does not match"):
        encode(m.SwapOffer(1, replace(VERSION, digest=bytes(32)), TERMS))


def test_words_for_people_are_made_to_fit() -> None:
    assert decode(encode(m.Goodbye("line\nline \x1b" + "x" * 500))) == m.Goodbye(("line line  " + "x" * 500)[:256])
    assert decode(encode(m.Goodbye("half \ud800"))) == m.Goodbye("half  ")


# Fuzzing

SWAPS_IN = (None, True, -1, 2**64 - 1, 0.5, float("nan"), "x" * 300, b"x" * 40, (), ((),) * 60, {}, {"a": 1}, {1: 2})


def mutated(rng: random.Random, valid: list[bytes]) -> bytes:
    """Random bytes, or a valid frame cut, flipped, spliced, deepened, lengthened or retyped."""
    base = rng.choice(valid)
    match rng.randrange(7):
        case 0:
            return rng.randbytes(rng.randrange(80))
        case 1:
            return base[: rng.randrange(len(base) + 1)]
        case 2:
            flipped = bytearray(base)
            for _ in range(rng.randrange(1, 5)):
                flipped[rng.randrange(len(flipped))] = rng.randrange(256)
            return bytes(flipped)
        case 3:
            other = rng.choice(valid)
            return base[: rng.randrange(len(base))] + other[rng.randrange(len(other)) :]
        case 4:
            header = rng.choice([b"\xdd", b"\xdb", b"\xc6", b"\xdf", b"\xc9", b"\xdc", b"\xda", b"\xc5", b"\xde"])
            at = rng.randrange(len(base))
            return base[:at] + header + rng.randbytes(4) + base[at:]
        case 5:
            return base[:2] + rng.choice([b"\x91", b"\x92\x00", b"\x81", b"\xdc\x00\x01"]) * rng.randrange(3000)
        case _:
            wire = list(msgpack.unpackb(base, use_list=False))
            wire[rng.randrange(len(wire))] = rng.choice(SWAPS_IN)
            return frame(*wire)


def test_fuzz_20_000_inputs_give_a_message_or_a_remote_error() -> None:
    rng = random.Random(20_000)
    valid = [encode(message) for message in EXAMPLES.values()]
    taken = 0
    for _ in range(20_000):
        data = mutated(rng, valid)
        try:
            message = decode(data)
        except RemoteError as error:
            assert 0 < len(str(error)) < 400, data
        else:
            assert decode(encode(message)) == message, data
            taken += 1
    assert 100 < taken < 15_000  # neither everything refused nor everything taken


# Vectors: docs/protocol.md refers to these files, other implementations may test against them


@pytest.mark.parametrize("name", EXAMPLES)
def test_vector(name: str) -> None:
    kept = json.loads((VECTORS / f"{name}.json").read_text())
    data = bytes.fromhex(kept["frame"])
    assert decode(data) == EXAMPLES[name]
    assert kept == vector(EXAMPLES[name])
    assert kept["tag"] == data[1]


def test_every_vector_has_an_example() -> None:
    assert sorted(path.stem for path in VECTORS.glob("*.json")) == sorted(EXAMPLES)
