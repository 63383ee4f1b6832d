"""Where things lie in the DHT: keys are hashed once more, and nearness is the XOR of the hashes (Kademlia)."""

import base64
import hashlib

from p2pfed.net.address import base58_decode
from p2pfed.ports import PeerId

SHA256_MULTIHASH = bytes((0x12, 0x20))
"""Code of SHA-256 and its length (multiformats)."""
CID_V1_RAW = bytes((0x01, 0x55))
KEY_BYTES_MAX = 128
"""A multihash of 512 bits has 66 bytes, a peer id 38; nothing longer is a key of ours or of others."""
PLACE_BITS = 256


def network_key(network_id: str) -> bytes:
    """The key that peers of a network provide: the multihash SHA-256 of a fixed text."""
    return SHA256_MULTIHASH + hashlib.sha256(f"/p2pfed/{network_id}".encode()).digest()


def network_cid(network_id: str) -> str:
    """The same as a CID (version 1, raw, base32), as other implementations want to be given it."""
    text = base64.b32encode(CID_V1_RAW + network_key(network_id)).decode().lower().rstrip("=")
    return "b" + text


def place_of(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest(), "big")


def place_of_peer(peer: PeerId) -> int:
    return place_of(base58_decode(peer))
