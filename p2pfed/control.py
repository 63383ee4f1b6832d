"""The local control socket of a running node: `status`, `peers`, `stop`, for its owner alone.

A Unix socket in the state folder. One request a connection, one line of JSON each way:
{"command": "status", ...} -> {"ok": true, "result": ...} or {"ok": false, "error": "...", "exit_code": 10}.
Nobody else gets in: the folder is 0700, the socket 0600, and the kernel tells the caller's user id.
A caller that stalls holds one of CLIENTS_MAX places for REQUEST_S, and nobody up.
"""

import hashlib
import json
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import trio

from p2pfed.errors import ExitCode, LocalError, P2pfedError

SOCKET_NAME = "control.sock"
SOCKET_PATH_BYTES_MAX = 100
"""sockaddr_un holds 104 bytes on some systems, 108 on others, with an ending zero."""
REQUEST_BYTES_MAX = 64 * 1024
RESPONSE_BYTES_MAX = 8 * 1024 * 1024
"""Every peer of a full view with all its addresses, many times over."""
CLIENTS_MAX = 16
"""At once: a person, a dashboard and some scripts."""
REQUEST_S = 5.0
"""For the request to arrive, and for the response to be taken; both are local."""

Handler = Callable[[Mapping[str, Any]], Awaitable[object]]
"""Takes the whole request, gives anything JSON can hold. A P2pfedError becomes the answer."""


class TaskStatus(Protocol):
    """What trio's `Nursery.start` passes; spelt out because trio's installed type stubs are older than it."""

    def started(self) -> None: ...


def socket_path(home: Path, environ: Mapping[str, str]) -> Path:
    """Where the socket of that state folder is: inside, or, where that path is too long, in the runtime folder.

    Raises LocalError where the runtime folder belongs to somebody else.
    """
    inside = home.absolute() / SOCKET_NAME
    if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
        return inside
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16] + ".sock"
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    folder = (runtime if runtime.is_dir() else Path("/tmp")) / f"p2pfed-{os.getuid()}"
    if len(os.fsencode(folder / name)) > SOCKET_PATH_BYTES_MAX:
        folder = Path(f"/tmp/p2pfed-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _require_private(folder)
    return folder / name


async def serve_control(
    path: Path,
    handlers: Mapping[str, Handler],
    task_status: TaskStatus = trio.TASK_STATUS_IGNORED,
) -> None:
    """Until cancelled; then the socket file is gone. A socket file nobody answers on is replaced.

    Raises LocalError: another process answers there (home locked), or the folder is not private (disk).
    """
    _require_private(path.parent)
    listener = _listen(path)
    inode = _inode(path)
    places = trio.CapacityLimiter(CLIENTS_MAX)

    async def serve_client(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                try:
                    places.acquire_nowait()
                except trio.WouldBlock:
                    await _respond(stream, _refusal(f"{CLIENTS_MAX} callers at once are already served"))
                    return
                try:
                    await _serve(stream, handlers)
                finally:
                    places.release()

    try:
        await trio.serve_listeners(serve_client, [listener], task_status=_without_value(task_status))
    finally:
        # A later node may have put its own there.
        if _inode(path) == inode:
            _remove(path)


def ask(path: Path, command: str, timeout_s: float = 10.0, **arguments: object) -> Any:
    """The result of a command. Raises LocalError: no node runs there, or with the exit code the node gave.

    `timeout_s` counts from the last byte that moved.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(os.fspath(path))
        except TimeoutError as error:
            raise LocalError(f"the node at {path} took no call in {timeout_s:g} s", ExitCode.NOT_RUNNING) from error
        except OSError as error:
            raise LocalError(f"no node is running at {path} ({error.strerror})", ExitCode.NOT_RUNNING) from error
        try:
            # A node that has heard enough answers and closes: its answer counts, not the failed sending.
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(json.dumps({**arguments, "command": command}).encode() + b"\n")
            response = _answer(client)
        except TimeoutError as error:
            raise LocalError(f"the node at {path} did not answer in {timeout_s:g} s", ExitCode.NOT_RUNNING) from error
        except (OSError, ValueError) as error:
            raise LocalError(f"the node at {path} broke off its answer ({error})", ExitCode.NOT_RUNNING) from error
    if response.get("ok") is True:
        return response.get("result")
    code = next((code for code in ExitCode if code == response.get("exit_code")), ExitCode.BUG)
    raise LocalError(str(response.get("error")), code)


def _answer(client: socket.socket) -> dict[str, Any]:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = client.recv(65536)
        if not chunk:
            raise ValueError(f"{len(received)} bytes came")
        received += chunk
        if len(received) > RESPONSE_BYTES_MAX:
            raise ValueError(f"more than {RESPONSE_BYTES_MAX} bytes came")
    response = json.loads(received)
    if not isinstance(response, dict):
        raise ValueError("it is no JSON object")
    return response


def _without_value(task_status: TaskStatus) -> Any:
    """serve_listeners reports its listeners; our caller only waits for the moment."""

    class Started:
        def started(self, _listeners: object) -> None:
            task_status.started()

    return Started()


def _listen(path: Path) -> trio.SocketListener:
    if _answers(path):
        raise LocalError(f"another node answers at {path}", ExitCode.HOME_LOCKED)
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            path.unlink()
        raw.bind(os.fspath(path))
        path.chmod(0o600)
        raw.listen(CLIENTS_MAX)
    except OSError as error:
        raw.close()
        raise LocalError(f"control socket {path} cannot be made: {error.strerror}", ExitCode.DISK) from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(raw))


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except TimeoutError:
            return True
        except OSError:
            return False
        return True


async def _serve(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    if not _is_owner(stream.socket):
        await _respond(stream, _refusal("only the user who runs this node may ask it"))
        return
    with trio.move_on_after(REQUEST_S) as limit:
        line = await _receive_line(stream)
    if limit.cancelled_caught:
        await _respond(stream, _refusal(f"no whole request in {REQUEST_S:g} s"))
        return
    await _respond(stream, await _handle(line, handlers))


async def _handle(line: bytes | None, handlers: Mapping[str, Handler]) -> dict[str, object]:
    if line is None:
        return _refusal(f"a request of more than {REQUEST_BYTES_MAX} bytes, or without an end")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return _refusal("the request is not JSON")
    if not isinstance(request, dict) or not isinstance(command := request.get("command"), str):
        return _refusal('the request is not of the form {"command": "..."}')
    if command not in handlers:
        return _refusal(f'unknown command "{command[:40]}", known are {", ".join(sorted(handlers))}')
    try:
        return {"ok": True, "result": await handlers[command](request)}
    except P2pfedError as error:
        return {"ok": False, "error": str(error), "exit_code": int(error.exit_code)}


async def _receive_line(stream: trio.SocketStream) -> bytes | None:
    """None where the line is too long or the caller stopped within it."""
    received = bytearray()
    while b"\n" not in received:
        if len(received) > REQUEST_BYTES_MAX:
            return None
        chunk = await stream.receive_some(REQUEST_BYTES_MAX)
        if not chunk:
            return None
        received += chunk
    return bytes(received.partition(b"\n")[0]) if len(received) <= REQUEST_BYTES_MAX else None


async def _respond(stream: trio.SocketStream, response: dict[str, object]) -> None:
    line = json.dumps(response, separators=(",", ":")).encode() + b"\n"
    # Shielded: the command may be the one that stops this very node, and is owed its answer.
    with trio.CancelScope(deadline=trio.current_time() + REQUEST_S, shield=True):
        await stream.send_all(line)


def _refusal(words: str) -> dict[str, object]:
    return {"ok": False, "error": words, "exit_code": int(ExitCode.USAGE)}


def _is_owner(client: trio.socket.SocketType) -> bool:
    """By the kernel's word where it gives one (Linux); elsewhere the folder's mode has to do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (os.getuid(), 0)


def _require_private(folder: Path) -> None:
    try:
        found = folder.lstat()
    except OSError as error:
        raise LocalError(f"folder {folder} cannot be used: {error.strerror}", ExitCode.DISK) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        mode = f"mode {stat.S_IMODE(found.st_mode):o}, user {found.st_uid}"
        raise LocalError(f"folder {folder} must be its user's own and of mode 700, it is {mode}", ExitCode.DISK)
