"""The state folder: whole after every kill, private, locked, and clear about a disk that is full."""

import errno
import json
import os
import random
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from p2pfed.core.messages import PeerRecord
from p2pfed.errors import ExitCode, LocalError
from p2pfed.ports import PeerId
from p2pfed.store import CHECKPOINTS_KEPT, PEERS_KEPT, open_home, write_atomic
from tests.store_writer import payload_of

ROOT = Path(__file__).parents[1]
PEERS = (
    PeerRecord(PeerId("12D3KooWa"), ("/ip4/192.0.2.1/tcp/1", "/ip6/::1/tcp/2")),
    PeerRecord(PeerId("12D3KooWb"), ()),
)


def checkpoints(path: Path) -> list[Path]:
    return sorted(path.glob("checkpoint-*"))


def test_a_fresh_folder_holds_nothing_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "home"
    with open_home(path) as home:
        assert home.load_checkpoint() is None
        assert home.load_peers() == ()
        assert home.starts == 1
        home.save_checkpoint(1, b"x")
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in path.iterdir())


def test_a_folder_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with open_home(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_checkpoints_survive_the_process_and_the_last_two_are_kept(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        for steps in (5, 10, 15):
            home.save_checkpoint(steps, bytes([steps]))
        home.save_checkpoint(15, b"the same step, after a mix")
        assert len(checkpoints(tmp_path)) == CHECKPOINTS_KEPT
    with open_home(tmp_path) as home:
        loaded = home.load_checkpoint()
        assert home.starts == 2
    assert loaded is not None
    assert (loaded.steps, loaded.payload, loaded.skipped) == (15, b"the same step, after a mix", ())


@pytest.mark.parametrize("damage", [b"", b"olde", b"newer, longer", b"newes"], ids=["empty", "short", "long", "flip"])
def test_a_damaged_newest_falls_back_to_the_older_and_says_so(tmp_path: Path, damage: bytes) -> None:
    with open_home(tmp_path) as home:
        home.save_checkpoint(1, b"older")
        home.save_checkpoint(2, b"newer")
        newest = checkpoints(tmp_path)[-1]
        newest.write_bytes(damage)
        loaded = home.load_checkpoint()
        assert loaded is not None
        assert (loaded.steps, loaded.payload) == (1, b"older")
        assert len(loaded.skipped) == 1
        assert str(newest) in loaded.skipped[0]
        assert "is damaged" in loaded.skipped[0]
        home.save_checkpoint(3, b"newest")
        assert home.load_checkpoint() is not None
        home.save_checkpoint(4, b"last")
        assert newest not in checkpoints(tmp_path)


def test_when_all_are_damaged_it_says_so_and_does_not_start_afresh(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        home.save_checkpoint(1, b"a")
        home.save_checkpoint(2, b"b")
        for each in checkpoints(tmp_path):
            each.write_bytes(b"")
        with pytest.raises(LocalError, match="no checkpoint is whole") as caught:
            home.load_checkpoint()
        assert caught.value.exit_code is ExitCode.CHECKPOINT
        assert str(caught.value).count("is damaged") == 2


def test_what_a_killed_writer_left_is_cleaned_and_foreign_files_stay(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000001-5-0123456789abcdef.part").write_bytes(b"half")
    (tmp_path / "checkpoint-of-mine").write_bytes(b"foreign")
    with open_home(tmp_path) as home:
        assert home.load_checkpoint() is None
    assert not list(tmp_path.glob("*.part"))
    assert (tmp_path / "checkpoint-of-mine").read_bytes() == b"foreign"


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with open_home(tmp_path):
        command = [sys.executable, "-m", "tests.store_writer", str(tmp_path)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert f"in use by process {os.getpid()}" in second.stderr
        with pytest.raises(LocalError, match=f"process {os.getpid()}") as caught, open_home(tmp_path):
            pass
        assert caught.value.exit_code is ExitCode.HOME_LOCKED
    with open_home(tmp_path) as home:
        assert home.starts == 2  # the refused ones did not count


def test_the_lock_goes_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), open_home(tmp_path):
        raise RuntimeError("inside")
    with open_home(tmp_path):
        pass


def test_a_path_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LocalError, match="cannot be used") as caught, open_home(path):
            pass
        assert caught.value.exit_code is ExitCode.DISK


def test_a_damaged_start_counter_begins_again(tmp_path: Path) -> None:
    for content in (b"", b"x", b"-1", b"true", b"1" * 5000, b"9" * 30, b"[" * 100_000):
        (tmp_path / "starts").write_bytes(content)
        with open_home(tmp_path) as home:
            assert home.starts == 1


# Peers


def test_peers_are_remembered(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        home.save_peers(PEERS)
    with open_home(tmp_path) as home:
        assert home.load_peers() == PEERS


def test_no_more_peers_are_kept_than_make_sense(tmp_path: Path) -> None:
    many = [PeerRecord(PeerId(f"peer{at}"), ()) for at in range(PEERS_KEPT + 10)]
    with open_home(tmp_path) as home:
        home.save_peers(many)
        assert home.load_peers() == tuple(many[:PEERS_KEPT])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"peers": 7}',
        b'{"peers": [1, null, [], {}]}',
        b'{"peers": [{"peer": "a"}, {"peer": 1, "addresses": []}, {"peer": "../x", "addresses": []}]}',
        b'{"peers": [{"peer": "a", "addresses": ["no slash"]}, {"peer": "a", "addresses": [1]}]}',
        b'{"peers": [{"peer": "a", "addresses": "/ip4"}, {"peer": "\\u001b", "addresses": []}]}',
        b"[" * 200_000,
        b'{"peers": [' + b" " * 2_000_000 + b"]}",
    ],
    ids=range(12),
)
def test_a_damaged_peer_file_is_forgotten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "peers.json").write_bytes(content)
    with open_home(tmp_path) as home:
        assert home.load_peers() == ()


def test_one_bad_peer_does_not_hide_the_good_ones(tmp_path: Path) -> None:
    entries = [{"peer": "bad/id", "addresses": []}, {"peer": "good", "addresses": ["/ip4/192.0.2.1/tcp/1"]}]
    (tmp_path / "peers.json").write_text(json.dumps({"peers": entries + entries}))
    with open_home(tmp_path) as home:
        assert home.load_peers() == (PeerRecord(PeerId("good"), ("/ip4/192.0.2.1/tcp/1",)),)


# Disks that do not do what they should


def failing(code: int) -> Callable[..., int]:
    def fail(*_arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no room for"),
        (errno.EDQUOT, "no room for"),
        (errno.EIO, "cannot be written"),
        (errno.EROFS, "cannot be written"),
    ],
)
def test_disk_errors_are_one_sentence_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    with open_home(tmp_path) as home:
        home.save_checkpoint(1, b"kept")
        before = sorted(tmp_path.iterdir())
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing(code))
            with pytest.raises(LocalError, match=words) as caught:
                home.save_checkpoint(2, bytes(1000))
        assert caught.value.exit_code is ExitCode.DISK
        assert "1000 bytes" in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert sorted(tmp_path.iterdir()) == before
        loaded = home.load_checkpoint()
        assert loaded is not None
        assert loaded.payload == b"kept"


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:7]))
    write_atomic(tmp_path / "file", bytes(range(100)))
    assert (tmp_path / "file").read_bytes() == bytes(range(100))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from p2pfed.errors import LocalError
from p2pfed.store import open_home
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_home(Path(sys.argv[1])) as home:
    home.save_checkpoint(1, b"kept")
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    try:
        home.save_checkpoint(2, bytes(9000))
    except LocalError as error:
        print(error)
    print(sorted(each.name for each in home.path.glob("checkpoint-*")), home.load_checkpoint())
"""


def test_a_real_limit_reached_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """The kernel takes 5,000 of 9,000 bytes and then refuses, as a filling disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert "no room for" in done.stdout, done.stderr
    assert "9000 bytes are needed" in done.stdout
    assert "Checkpoint(steps=1, payload=b'kept', skipped=())" in done.stdout
    assert ".part" not in done.stdout.splitlines()[1]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # only the child was limited


class Killed(BaseException):
    """Ends the process in the test's mind: no handler for errors sees it."""


def test_death_before_each_single_system_call_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every instant that differs on disk, in turn; what random kills can only hit by luck."""
    calls_left = 0

    def mortal(call: Callable[..., Any], short: bool) -> Callable[..., Any]:
        def maybe(*arguments: Any, **options: Any) -> Any:
            nonlocal calls_left
            if calls_left == 0:
                raise Killed
            calls_left -= 1
            if short:
                arguments = (arguments[0], arguments[1][:7])
            return call(*arguments, **options)

        return maybe

    with open_home(tmp_path) as home:
        home.save_checkpoint(1, b"before")
        home.save_checkpoint(2, b"and before that one")
    outcomes = []
    for at in range(100):
        expected = outcomes[-1] if outcomes else 2
        calls_left = at
        with open_home(tmp_path) as home, monkeypatch.context() as patch:
            for name in ("open", "write", "fsync", "replace", "unlink"):
                patch.setattr(os, name, mortal(getattr(os, name), name == "write"))
            try:
                home.save_checkpoint(expected + 1, f"payload of step {expected + 1}".encode())
                finished = True
            except Killed:
                finished = False
        with open_home(tmp_path) as home:
            loaded = home.load_checkpoint()
        assert loaded is not None
        assert loaded.skipped == (), at
        assert loaded.steps in ((expected + 1,) if finished else (expected, expected + 1)), at
        assert loaded.steps == 2 or loaded.payload == f"payload of step {loaded.steps}".encode()
        outcomes.append(loaded.steps)
        if finished:
            break
    else:
        pytest.fail("never finished")
    assert outcomes[0] == 2
    assert len(outcomes) > 8


@pytest.mark.slow
def test_kill_9_at_any_instant_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Kills, not power cuts: what the kernel has taken is there. Every promised checkpoint must load."""
    seed = 9
    rng = random.Random(seed)
    promised = 0
    torn = 0
    for kill in range(30):
        command = [sys.executable, "-m", "tests.store_writer", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            with suppress(subprocess.TimeoutExpired):
                writer.wait(rng.uniform(0, 0.03))
            writer.kill()
            said = [first, *writer.stdout]
        promised = max([promised, *(int(line) for line in said if line.endswith("\n"))])
        torn += bool(list(tmp_path.glob("*.part")))
        with open_home(tmp_path) as home:
            loaded = home.load_checkpoint()
            assert loaded is not None, (seed, kill)
            assert loaded.skipped == (), (seed, kill)
            assert promised <= loaded.steps <= promised + 1, (seed, kill)
            assert loaded.payload == payload_of(loaded.steps), (seed, kill)
            assert not list(tmp_path.glob("*.part"))
            promised = loaded.steps
    assert torn > 0, "no kill fell into a write: the test proved nothing"
