"""One node's state folder: locked, private, and whole after a kill at any instant.

Every file is written beside its place, synced, and renamed into it, then the folder is synced: a
reader sees the old file or the new one. One process holds the folder at a time; the lock goes with
the process, however it ends. Files: `lock` (holder's pid), `starts`, `peers.json`, and
`checkpoint-<sequence>-<steps>-<first 16 hex digits of SHA-256>`, of which the last two are kept.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from p2pfed.core.messages import PeerRecord
from p2pfed.errors import ExitCode, LocalError, RemoteError
from p2pfed.wire.codec import record_of

CHECKPOINTS_KEPT = 2
"""The newest, and one in case its medium lost it."""
PEERS_KEPT = 64
"""Peers worth dialling after a restart: half a full view."""
SMALL_FILE_BYTES_MAX = 1024 * 1024
"""Of peers and counters: 64 peers with 16 addresses of 256 characters take a quarter."""
DIGEST_CHARS = 16
PART_SUFFIX = ".part"
"""Of a file that is still being written; left only by a process that was killed."""
FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})-(\d{1,19})-([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`skipped`: newer checkpoints that were damaged, a sentence each."""

    steps: int
    payload: bytes
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _CheckpointFile:
    sequence: int
    steps: int
    digest: str
    path: Path


class Home:
    """A locked state folder. Made by `open_home`; use nothing of it after that block."""

    def __init__(self, path: Path, starts: int) -> None:
        self.path = path
        self.starts = starts
        """How often a process has opened this folder, this one included."""

    def save_checkpoint(self, steps: int, payload: bytes) -> None:
        """Atomic; older checkpoints go only after this one is safe. Raises LocalError (disk)."""
        files = _checkpoint_files(self.path)
        sequence = files[0].sequence + 1 if files else 1
        digest = hashlib.sha256(payload).hexdigest()[:DIGEST_CHARS]
        write_atomic(self.path / f"checkpoint-{sequence:06}-{steps}-{digest}", payload)
        for old in files[CHECKPOINTS_KEPT - 1 :]:
            _remove(old.path)

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest whole one, None before the first. Raises LocalError (checkpoint) where all are damaged."""
        skipped: list[str] = []
        for file in _checkpoint_files(self.path):
            try:
                payload = file.path.read_bytes()
            except OSError as error:
                skipped.append(f"{file.path} cannot be read: {error.strerror}")
                continue
            found = hashlib.sha256(payload).hexdigest()[:DIGEST_CHARS]
            if found == file.digest:
                return Checkpoint(file.steps, payload, tuple(skipped))
            skipped.append(f"{file.path} is damaged: its SHA-256 starts with {found}, not {file.digest}")
        if skipped:
            raise LocalError("no checkpoint is whole: " + "; ".join(skipped), ExitCode.CHECKPOINT)
        return None

    def save_peers(self, peers: Sequence[PeerRecord]) -> None:
        """The first PEERS_KEPT of them. Raises LocalError (disk)."""
        entries = [{"peer": each.peer, "addresses": list(each.addresses)} for each in peers[:PEERS_KEPT]]
        write_atomic(self.path / "peers.json", json.dumps({"peers": entries}, indent=1).encode())

    def load_peers(self) -> tuple[PeerRecord, ...]:
        """What can be understood: a node that forgot its peers finds others, so nothing here is an error."""
        loaded = _load_json(self.path / "peers.json")
        entries = loaded.get("peers") if isinstance(loaded, dict) else None
        records: dict[str, PeerRecord] = {}
        for entry in entries[:PEERS_KEPT] if isinstance(entries, list) else ():
            if not isinstance(entry, dict) or not isinstance(addresses := entry.get("addresses"), list):
                continue
            with suppress(RemoteError):
                record = record_of(entry.get("peer"), tuple(addresses))
                records.setdefault(record.peer, record)
        return tuple(records.values())


@contextmanager
def open_home(path: Path) -> Iterator[Home]:
    """Make, lock and clean the folder for the block.

    Raises LocalError: another process has it (home locked), or it cannot be made or written (disk).
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LocalError(f"state folder {path} cannot be used: {error.strerror}", ExitCode.DISK) from error
    try:
        _lock(lock, path)
        for left in path.glob(f"*{PART_SUFFIX}"):
            _remove(left)
        starts = _load_json(path / "starts")
        starts = starts + 1 if type(starts) is int and 0 <= starts < 2**53 else 1
        write_atomic(path / "starts", str(starts).encode())
        yield Home(path, starts)
    finally:
        os.close(lock)


def write_atomic(path: Path, data: bytes) -> None:
    """The file is there, whole and on the medium, or LocalError (disk) is raised and the old one is still there."""
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        try:
            _write_synced(part, data)
            part.replace(path)
        except OSError:
            _remove(part)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in FULL_ERRORS:
            words = f"no room for {path}: {len(data)} bytes are needed ({error.strerror})"
        else:
            words = f"{path} ({len(data)} bytes) cannot be written: {error.strerror}"
        raise LocalError(words, ExitCode.DISK) from error


def _write_synced(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Without it a power cut may undo the rename."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders; its files are synced
            raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        raise LocalError(
            f"state folder {path} is in use by process {holder or 'unknown'}", ExitCode.HOME_LOCKED
        ) from error
    except OSError as error:
        raise LocalError(f"state folder {path} cannot be locked: {error.strerror}", ExitCode.DISK) from error
    with suppress(OSError):  # the pid is for people; on a full disk the lock holds without it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _checkpoint_files(path: Path) -> list[_CheckpointFile]:
    """Newest first."""
    found = ((_CHECKPOINT.fullmatch(each.name), each) for each in path.glob("checkpoint-*"))
    files = [_CheckpointFile(int(match[1]), int(match[2]), match[3], each) for match, each in found if match]
    return sorted(files, key=lambda file: file.sequence, reverse=True)


def _load_json(path: Path) -> object:
    """None where there is no such file, or nothing usable in it."""
    try:
        with path.open("rb") as file:
            data = file.read(SMALL_FILE_BYTES_MAX + 1)
        return json.loads(data) if len(data) <= SMALL_FILE_BYTES_MAX else None
    except (OSError, ValueError, RecursionError):
        return None


def _remove(path: Path) -> None:
    """What cannot be removed is tried again next time."""
    with suppress(OSError):
        path.unlink()
