"""Who this device is: one Ed25519 key in one file, and the peer id that follows from it.

The file holds libp2p's own private-key form (protobuf, 68 bytes), readable by its owner only.
Needs no libp2p and starts nothing, so that `p2pfed identity` is quick.
"""

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2pfed.errors import ExitCode, LocalError
from p2pfed.net.address import ED25519_ID_PREFIX, base58_encode
from p2pfed.ports import PeerId

SEED_BYTES = 32
KEY_PREFIX = bytes((0x08, 0x01, 0x12, 0x40))
"""Protobuf of a libp2p private key: type Ed25519, 64 bytes of data (seed and public key)."""
KEY_BYTES = len(KEY_PREFIX) + 2 * SEED_BYTES

EXPORT_MAGIC = b"p2pfed-identity\x01"
"""Name and version of the format: this, salt, nonce, ChaCha20-Poly1305 of the key (all of it authenticated)."""
SALT_BYTES = 16
NONCE_BYTES = 12
EXPORT_BYTES = len(EXPORT_MAGIC) + SALT_BYTES + NONCE_BYTES + KEY_BYTES + 16
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**16, 8, 1
"""64 MiB and about 0.2 s a guess: what a small device can still pay once."""
SCRYPT_MEMORY_BYTES = 2 * 128 * SCRYPT_N * SCRYPT_R
PASSPHRASE_CHARS_MIN = 8


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A private key; its repr shows the peer id only."""

    seed: bytes

    @property
    def public_key(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    @property
    def peer_id(self) -> PeerId:
        return PeerId(base58_encode(ED25519_ID_PREFIX + self.public_key))

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"


def new_identity() -> Identity:
    return Identity(secrets.token_bytes(SEED_BYTES))


def load_or_create_identity(path: Path) -> Identity:
    """The identity at `path`, made on first use; a file it cannot use is never replaced: LocalError(IDENTITY)."""
    try:
        return load_identity(path)
    except FileNotFoundError:
        pass
    identity = new_identity()
    try:
        _write_private(path, _encode(identity))
    except FileExistsError:  # another process was quicker
        return load_identity(path)
    return identity


def load_identity(path: Path) -> Identity:
    """Raises FileNotFoundError, or LocalError(IDENTITY) with the remedy."""
    try:
        mode = path.stat().st_mode
        raw = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refused(f"identity {path} cannot be read ({error.strerror}); give its owner read access") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise _refused(f"identity {path} can be read by others (mode {mode & 0o777:04o}); run: chmod 600 {path}")
    return _decode(raw, path)


def export_identity(path: Path, out: Path, passphrase: str) -> PeerId:
    """Write the identity at `path` to `out`, encrypted. Never overwrites. Raises LocalError(IDENTITY)."""
    if len(passphrase) < PASSPHRASE_CHARS_MIN:
        raise _refused(
            f"passphrase of {len(passphrase)} characters, fewer than {PASSPHRASE_CHARS_MIN}; choose a longer one"
        )
    try:
        identity = load_identity(path)
    except FileNotFoundError:
        raise _refused(f"there is no identity at {path} to export") from None
    salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
    sealed = ChaCha20Poly1305(_stretch(passphrase, salt)).encrypt(nonce, _encode(identity), EXPORT_MAGIC + salt)
    try:
        _write_private(out, EXPORT_MAGIC + salt + nonce + sealed)
    except FileExistsError:
        raise _refused(f"{out} exists; choose another file for the export") from None
    return identity.peer_id


def import_identity(exported: Path, path: Path, passphrase: str) -> PeerId:
    """Write the identity in `exported` to `path`. Never overwrites. Raises LocalError(IDENTITY)."""
    try:
        raw = exported.read_bytes()
    except OSError as error:
        raise _refused(f"exported identity {exported} cannot be read ({error.strerror})") from error
    if not raw.startswith(EXPORT_MAGIC) or len(raw) != EXPORT_BYTES:
        raise _refused(f"{exported} is not an exported identity of format 1 ({EXPORT_BYTES} bytes)")
    salt, rest = raw[len(EXPORT_MAGIC) :][:SALT_BYTES], raw[len(EXPORT_MAGIC) + SALT_BYTES :]
    try:
        key = ChaCha20Poly1305(_stretch(passphrase, salt)).decrypt(
            rest[:NONCE_BYTES], rest[NONCE_BYTES:], EXPORT_MAGIC + salt
        )
    except InvalidTag:
        raise _refused(f"wrong passphrase for {exported}, or the file was changed") from None
    identity = _decode(key, exported)
    try:
        _write_private(path, key)
    except FileExistsError:
        raise _refused(f"there is already an identity at {path}; move it away first") from None
    return identity.peer_id


def _encode(identity: Identity) -> bytes:
    return KEY_PREFIX + identity.seed + identity.public_key


def _decode(raw: bytes, path: Path) -> Identity:
    identity = Identity(raw[len(KEY_PREFIX) :][:SEED_BYTES]) if len(raw) == KEY_BYTES else None
    if identity is None or _encode(identity) != raw:
        raise _refused(
            f"identity {path} is damaged ({len(raw)} bytes); restore it from an export, or move it away for a new one"
        )
    return identity


def _stretch(passphrase: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=SCRYPT_MEMORY_BYTES, dklen=32
    )


def _write_private(path: Path, raw: bytes) -> None:
    """All or nothing, on disk before it has its name. Raises FileExistsError where `path` exists."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # fails where the name is taken, unlike a rename
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise _refused(
            f"identity {path} cannot be written ({error.strerror}); check the folder and the space left"
        ) from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refused(message: str) -> LocalError:
    return LocalError(message, ExitCode.IDENTITY)
