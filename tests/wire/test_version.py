"""Versions: cut, named by digest, checked part by part."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.messages import PART_BYTES
from p2pfed.core.version import part_length, part_of, part_problem, version_digest, version_of, version_problem
from p2pfed.ports import Encoding

PAYLOAD = bytes(range(256)) * 3


@given(st.binary(min_size=1, max_size=700), st.integers(1, 256))
def test_the_parts_are_the_payload(payload: bytes, part_size: int) -> None:
    if len(payload) > 4096 * part_size:
        return
    version = version_of(payload, Encoding.INT4, steps=1, examples=2, part_size=part_size)
    parts = [part_of(payload, index, part_size) for index in range(len(version.parts))]
    assert b"".join(parts) == payload
    assert all(part_problem(version, index, part) is None for index, part in enumerate(parts))
    assert all(len(part) == part_length(version, index) for index, part in enumerate(parts))
    assert version_problem(version) is None


def test_the_digest_is_as_the_specification_says() -> None:
    hashes = [hashlib.sha256(PAYLOAD[at : at + 500]).digest() for at in (0, 500)]
    by_hand = hashlib.sha256((768).to_bytes(8, "big") + (500).to_bytes(8, "big") + hashes[0] + hashes[1]).digest()
    assert version_of(PAYLOAD, Encoding.INT4, 0, 0, part_size=500).digest == by_hand
    assert version_digest(768, 500, hashes) == by_hand


def test_what_a_version_says_besides_is_not_part_of_the_digest() -> None:
    version, other = version_of(PAYLOAD, Encoding.INT4, 1, 2, 3), version_of(PAYLOAD, Encoding.INT8, 4, 5, 6)
    assert version.digest == other.digest
    assert (version.steps, version.examples, version.mixes, version.encoding) == (1, 2, 3, "int4")
    assert version_of(PAYLOAD, Encoding.INT4, 1, 2).mixes == 0


def test_payloads_past_the_bounds() -> None:
    with pytest.raises(ValueError, match="a version of 0 bytes"):
        version_of(b"", Encoding.INT4, 0, 0)
    with pytest.raises(ValueError, match="5000 parts, more than 4096"):
        version_of(bytes(5000), Encoding.INT4, 0, 0, part_size=1)
    with pytest.raises(ValueError, match=f"not within 1 to {PART_BYTES}"):
        version_of(PAYLOAD, Encoding.INT4, 0, 0, part_size=PART_BYTES + 1)


def test_a_wrong_part_is_named() -> None:
    version = version_of(PAYLOAD, Encoding.INT4, 0, 0, part_size=500)
    assert part_problem(version, 2, b"") == "part 2 of a version with 2 parts"
    assert part_problem(version, -1, b"") == "part -1 of a version with 2 parts"
    assert part_problem(version, 1, PAYLOAD[500:767]) == "part 1 of 267 bytes, not 268"
    assert part_problem(version, 0, bytes(500)) == "part 0 does not match its hash"
    with pytest.raises(IndexError, match="part 2 of a payload with 2 parts"):
        part_of(PAYLOAD, 2, 500)


def test_every_inconsistency_has_words() -> None:
    version = version_of(PAYLOAD, Encoding.INT4, 0, 0, part_size=500)
    assert "not within 1 to" in str(version_problem(replace(version, size=0)))
    assert "with 2 part hashes, not 1" in str(version_problem(replace(version, size=500)))
    assert "does not match" in str(version_problem(replace(version, size=700)))
    assert "not of 32 bytes" in str(version_problem(replace(version, parts=(b"x", b"y"))))
