"""The control socket: the owner's questions are answered, stalled and hostile callers stop nobody."""

import json
import os
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from p2pfed import control
from p2pfed.control import CLIENTS_MAX, REQUEST_BYTES_MAX, SOCKET_PATH_BYTES_MAX, ask, serve_control, socket_path
from p2pfed.errors import ExitCode, LocalError, TransportError


async def echo(request: Mapping[str, Any]) -> object:
    return dict(request)


async def unlucky(_request: Mapping[str, Any]) -> object:
    raise TransportError("no peer answers")


HANDLERS: Mapping[str, control.Handler] = {"echo": echo, "unlucky": unlucky}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Short: a socket's path has a limit."""
    tmp_path.chmod(0o700)
    return tmp_path


def serving(path: Path, body: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, path, HANDLERS)
            with trio.fail_after(30):
                await body(nursery)
            nursery.cancel_scope.cancel()

    trio.run(main)


def asked(path: Path, body: Callable[[], None]) -> None:
    """Run a synchronous client in a thread against a served socket."""

    async def in_thread(_nursery: trio.Nursery) -> None:
        await trio.to_thread.run_sync(body)

    serving(path, in_thread)


def raw(path: Path, data: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(os.fspath(path))
        received = b""
        # A server that has heard enough closes; what it said before is still read first.
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while chunk := client.recv(65536):
                received += chunk
    answer = json.loads(received)
    assert isinstance(answer, dict)
    return answer


def refused(path: Path, command: str) -> LocalError:
    with pytest.raises(LocalError) as caught:
        ask(path, command, 5)
    return caught.value


def test_a_command_and_its_arguments_get_an_answer(folder: Path) -> None:
    path = socket_path(folder, {})

    def client() -> None:
        assert ask(path, "echo", count=3, text="é\n") == {"command": "echo", "count": 3, "text": "é\n"}
        assert ask(path, "echo", text="x" * 60_000)["text"] == "x" * 60_000
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    asked(path, client)
    assert not path.exists()


def test_errors_keep_their_words_and_exit_code(folder: Path) -> None:
    path = socket_path(folder, {})

    def client() -> None:
        error = refused(path, "unlucky")
        assert str(error) == "no peer answers"
        assert error.exit_code is ExitCode.TRANSPORT
        error = refused(path, "sattus")
        assert str(error) == 'unknown command "sattus", known are echo, unlucky'
        assert error.exit_code is ExitCode.USAGE

    asked(path, client)


def test_no_node_is_told_as_such(folder: Path) -> None:
    path = socket_path(folder, {})
    assert "no node is running" in str(refused(path, "echo"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    error = refused(path, "echo")
    assert "no node is running" in str(error)
    assert error.exit_code is ExitCode.NOT_RUNNING


def test_a_socket_file_of_a_killed_node_is_replaced(folder: Path) -> None:
    path = socket_path(folder, {})
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    asked(path, lambda: None if ask(path, "echo") else pytest.fail("no answer"))


def test_a_second_node_does_not_take_a_live_socket(folder: Path) -> None:
    path = socket_path(folder, {})

    async def second(_nursery: trio.Nursery) -> None:
        with pytest.raises(LocalError, match="another node answers") as caught:
            await serve_control(path, HANDLERS)
        assert caught.value.exit_code is ExitCode.HOME_LOCKED
        assert await trio.to_thread.run_sync(ask, path, "echo") == {"command": "echo"}

    serving(path, second)


def test_a_later_nodes_socket_is_not_removed(folder: Path) -> None:
    path = socket_path(folder, {})

    async def replaced(_nursery: trio.Nursery) -> None:
        path.rename(folder / "old")
        path.write_text("another's")

    serving(path, replaced)
    assert path.read_text() == "another's"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "without an end"),
        (b'{"command": "echo"', "without an end"),
        (b"x" * (REQUEST_BYTES_MAX + 1), f"more than {REQUEST_BYTES_MAX} bytes"),
        (b" " * (REQUEST_BYTES_MAX + 1) + b"\n", f"more than {REQUEST_BYTES_MAX} bytes"),
        (b"\xff\n", "not JSON"),
        (b"[" * 60_000 + b"\n", "not JSON"),
        (b"[]\n", "not of the form"),
        (b'{"command": 1}\n', "not of the form"),
        (b'{"command": ["echo"]}\n', "not of the form"),
    ],
    ids=range(9),
)
def test_bad_requests_are_answered_with_what_is_wrong(folder: Path, data: bytes, words: str) -> None:
    path = socket_path(folder, {})
    answers = []
    asked(path, lambda: answers.append(raw(path, data)))
    assert answers[0]["ok"] is False
    assert words in answers[0]["error"]


def test_a_stalled_caller_holds_up_nobody_and_too_many_are_told(folder: Path) -> None:
    path = socket_path(folder, {})

    async def crowd(_nursery: trio.Nursery) -> None:
        stalled = [await trio.open_unix_socket(os.fspath(path)) for _ in range(CLIENTS_MAX - 1)]
        for stream in stalled:
            await stream.send_all(b'{"comm')
        assert await trio.to_thread.run_sync(ask, path, "echo") == {"command": "echo"}
        stalled.append(await trio.open_unix_socket(os.fspath(path)))
        await trio.testing.wait_all_tasks_blocked(0.05)
        error = await trio.to_thread.run_sync(refused, path, "echo")
        assert f"{CLIENTS_MAX} callers" in str(error)
        for stream in stalled:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await trio.to_thread.run_sync(ask, path, "echo") == {"command": "echo"}

    serving(path, crowd)


def test_a_caller_that_never_ends_its_request_is_sent_away(folder: Path) -> None:
    """In virtual time: the clock jumps whenever nothing else can happen."""
    path = socket_path(folder, {})

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, path, HANDLERS)
            stream = await trio.open_unix_socket(os.fspath(path))
            await stream.send_all(b'{"comm')
            answer = b""
            while chunk := await stream.receive_some():
                answer += chunk
            assert b"no whole request in 5 s" in answer
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))


def test_the_command_that_stops_the_node_still_gets_its_answer(folder: Path) -> None:
    path = socket_path(folder, {})
    answers: list[object] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def stop(_request: Mapping[str, Any]) -> object:
                nursery.cancel_scope.cancel()
                return "stopping"

            await nursery.start(serve_control, path, {"stop": stop})
            answers.append(await trio.to_thread.run_sync(ask, path, "stop"))

    trio.run(main)
    assert answers == ["stopping"]
    assert not path.exists()


def test_other_users_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = socket_path(folder, {})
    monkeypatch.setattr(control, "_is_owner", lambda _client: False)
    asked(path, lambda: None if "only the user" in str(refused(path, "echo")) else pytest.fail("answered"))


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="this kernel does not tell who calls")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_known_by_the_kernels_word() -> None:
    """With all file modes opened by hand, so that only the kernel's word is left to refuse."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "control.sock"

        def as_nobody() -> None:
            Path(name).chmod(0o755)
            path.chmod(0o666)
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    os.setuid(65534)
                    os.write(writer, json.dumps(raw(path, b'{"command": "echo"}\n')).encode())
                finally:
                    os._exit(0)
            os.close(writer)
            os.waitpid(child, 0)
            answer = os.read(reader, 4096)
            os.close(reader)
            assert b"only the user who runs this node" in answer

        asked(path, as_nobody)


def test_a_folder_others_can_enter_is_refused(folder: Path) -> None:
    folder.chmod(0o750)
    with pytest.raises(LocalError, match="mode 700, it is mode 750"):
        trio.run(serve_control, folder / "control.sock", HANDLERS)


def test_a_node_that_does_not_answer_is_given_up(folder: Path) -> None:
    path = folder / "silent"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(os.fspath(path))
        silent.listen(1)
        with pytest.raises(LocalError, match=r"did not answer in 0\.05 s") as caught:
            ask(path, "echo", 0.05)
    assert caught.value.exit_code is ExitCode.NOT_RUNNING


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """tmp_path is itself too long for a socket where a worker has a folder of its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_a_long_path_gets_a_short_one_in_the_runtime_folder(tmp_path: Path, short_folder: Path) -> None:
    runtime = short_folder
    home = tmp_path / ("long-" * 20) / "home"
    other = tmp_path / ("long-" * 20) / "other"
    for folder in (home, other):
        folder.mkdir(parents=True, mode=0o700)
    path = socket_path(home, {"XDG_RUNTIME_DIR": str(runtime)})
    assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX
    assert path.parent.parent == runtime, "what is made public below is this test's own"
    assert path != socket_path(other, {"XDG_RUNTIME_DIR": str(runtime)})
    assert path == socket_path(home, {"XDG_RUNTIME_DIR": str(runtime)})
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    asked(path, lambda: None if ask(path, "echo") else pytest.fail("no answer"))
    path.parent.chmod(0o777)
    with pytest.raises(LocalError, match="must be its user's own"):
        socket_path(home, {"XDG_RUNTIME_DIR": str(runtime)})
