"""Cutting an adapter's bytes into parts and naming them by digest.

A version is immutable: its digest covers its size, its part size and the SHA-256 of every part, so
whoever knows the digest can check each part by itself, from any peer, in any order. The payload's own
header names its encoding, so the digest covers that too; what a version says besides is not covered.
"""

import hashlib
from collections.abc import Iterable

from p2pfed.core.messages import DIGEST_BYTES, PART_BYTES, PARTS_MAX, Version
from p2pfed.ports import Encoding

SIZE_MAX = PART_BYTES * PARTS_MAX
"""Bytes of the largest version: every part of the largest size."""


def parts_count(size: int, part_size: int) -> int:
    """How many parts a version of `size` bytes has."""
    return -(-size // part_size)


def version_digest(size: int, part_size: int, part_hashes: Iterable[bytes]) -> bytes:
    """SHA-256 over the size and the part size (8 bytes each, big endian) and all part hashes in order."""
    digest = hashlib.sha256(size.to_bytes(8, "big") + part_size.to_bytes(8, "big"))
    for part_hash in part_hashes:
        digest.update(part_hash)
    return digest.digest()


def version_of(
    payload: bytes, encoding: Encoding, steps: int, examples: int, mixes: int = 0, part_size: int = PART_BYTES
) -> Version:
    """The version that `payload` is. Raises ValueError where it is empty or larger than SIZE_MAX."""
    if not 0 < len(payload) <= SIZE_MAX:
        raise ValueError(f"a version of {len(payload)} bytes, not within 1 to {SIZE_MAX}")
    view = memoryview(payload)
    hashes = tuple(
        hashlib.sha256(view[start : start + part_size]).digest() for start in range(0, len(payload), part_size)
    )
    version = Version(
        encoding=encoding,
        digest=version_digest(len(payload), part_size, hashes),
        size=len(payload),
        part_size=part_size,
        parts=hashes,
        steps=steps,
        examples=examples,
        mixes=mixes,
    )
    if problem := version_problem(version):
        raise ValueError(problem)
    return version


def version_problem(version: Version) -> str | None:
    """What is inconsistent in a version, or None. Types and signs are checked by whoever made it."""
    if not 1 <= version.size <= SIZE_MAX:
        return f"version of {version.size} bytes, not within 1 to {SIZE_MAX}"
    if not 1 <= version.part_size <= PART_BYTES:
        return f"version with parts of {version.part_size} bytes, not within 1 to {PART_BYTES}"
    expected = parts_count(version.size, version.part_size)
    if expected > PARTS_MAX:
        return f"version in {expected} parts, more than {PARTS_MAX}"
    if len(version.parts) != expected:
        return f"version of {version.size} bytes with {len(version.parts)} part hashes, not {expected}"
    if any(len(part_hash) != DIGEST_BYTES for part_hash in version.parts):
        return f"version with a part hash that is not of {DIGEST_BYTES} bytes"
    if version.digest != version_digest(version.size, version.part_size, version.parts):
        return f"version digest {version.digest.hex()[:16]} does not match its size and part hashes"
    return None


def part_of(payload: bytes, index: int, part_size: int = PART_BYTES) -> bytes:
    """Part `index` of an own version. Raises IndexError past the end."""
    if not 0 <= index < parts_count(len(payload), part_size):
        raise IndexError(f"part {index} of a payload with {parts_count(len(payload), part_size)} parts")
    return payload[index * part_size : (index + 1) * part_size]


def part_length(version: Version, index: int) -> int:
    """Exact bytes of part `index`: all are of `part_size`, the last one may be shorter."""
    return min(version.part_size, version.size - index * version.part_size)


def part_problem(version: Version, index: int, data: bytes) -> str | None:
    """Why `data` is not part `index` of `version`, or None where it is."""
    if not 0 <= index < len(version.parts):
        return f"part {index} of a version with {len(version.parts)} parts"
    if len(data) != part_length(version, index):
        return f"part {index} of {len(data)} bytes, not {part_length(version, index)}"
    if hashlib.sha256(data).digest() != version.parts[index]:
        return f"part {index} does not match its hash"
    return None
