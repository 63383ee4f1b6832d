"""Checks of the device itself: Python, packages, clock, disk, state folder, ports."""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from p2pfed.doctor.finding import Finding, fail, ok, warn
from p2pfed.errors import ExitCode, LocalError

PYTHON_MIN = (3, 11)
LIBP2P = "0.8.1"
"""Its workarounds are written for exactly this one."""
TRAINING_PACKAGES = ("torch", "transformers", "peft", "safetensors", "datasets")
CLOCK_MIN_S = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
"""Before this version was written: the device has no battery for its clock, or no time server."""
DISK_FAIL_BYTES = 100 * 10**6
"""Two checkpoints of a small model and the event log."""
DISK_WARN_BYTES = 2 * 10**9
"""Two checkpoints of a 7B adapter with optimizer moments (80 MB each), and room for what else grows."""
BOOTSTRAP_PORT = 4001


def check_python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= PYTHON_MIN:
        yield ok("python", f"{version} at {sys.executable}")
    else:
        yield fail("python", f"{version}, older than 3.11", "install Python 3.11 or newer", ExitCode.EXTRA_MISSING)


def check_packages() -> Iterator[Finding]:
    found = _version("libp2p")
    if found == LIBP2P:
        yield ok("libp2p", found)
    else:
        yield fail(
            "libp2p", f"{found or 'missing'}, not {LIBP2P}", f"pip install libp2p=={LIBP2P}", ExitCode.EXTRA_MISSING
        )
    missing = [name for name in TRAINING_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield warn(
            "training packages",
            f"missing: {', '.join(missing)}; this device can be a bootstrap peer, not a node",
            "pip install 'p2pfed[node]'",
        )
    else:
        yield ok("training packages", ", ".join(f"{name} {_version(name)}" for name in TRAINING_PACKAGES))


def check_clock() -> Iterator[Finding]:
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now >= CLOCK_MIN_S:
        yield ok("clock", shown)
    else:
        yield warn("clock", f"{shown}, which is in the past", "set it by a time server, such as systemd-timesyncd")


def check_home(home: Path) -> Iterator[Finding]:
    """The state folder, or the nearest folder above it that exists: private, writable, with room."""
    where = home
    while not where.exists() and where != where.parent:
        where = where.parent
    remedy = f"give its user write access, or choose another with --home; now it is of user {_owner(where)}"
    if not where.is_dir():
        yield fail("state folder", f"{where} is not a folder", "choose another with --home DIR", ExitCode.DISK)
        return
    try:
        with tempfile.TemporaryFile(dir=where) as file:
            file.write(b"p2pfed")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield fail("state folder", f"{where} cannot be written: {error.strerror}", remedy, ExitCode.DISK)
    else:
        yield ok("state folder", f"{home}" + ("" if where == home else f", to be made below {where}"))
    if (home / "lock").exists() and home.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warn("state folder", f"{home} can be looked into by others", f"chmod 700 {home}")
    yield from _check_disk(where)


def check_ports() -> Iterator[Finding]:
    from p2pfed.net.interfaces import probe_port

    try:
        probe_port("0.0.0.0", 0)
        yield ok("listening", "TCP on a free port")
    except LocalError as error:
        yield fail("listening", str(error), "allow this user to open TCP sockets", ExitCode.PORT)
    try:
        probe_port("0.0.0.0", BOOTSTRAP_PORT)
        yield ok("port of a bootstrap peer", f"{BOOTSTRAP_PORT} is free")
    except LocalError:
        yield warn(
            "port of a bootstrap peer",
            f"{BOOTSTRAP_PORT} is in use; nodes do not need it",
            "a bootstrap peer takes another one with --listen /ip4/0.0.0.0/tcp/PORT",
        )


def _check_disk(where: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(where).free
    shown = f"{free / 10**9:.1f} GB free at {where}"
    remedy = "make room, or choose another place with --home DIR"
    if free < DISK_FAIL_BYTES:
        yield fail("disk", shown, remedy, ExitCode.DISK)
    elif free < DISK_WARN_BYTES:
        yield warn("disk", shown, remedy)
    else:
        yield ok("disk", shown)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
