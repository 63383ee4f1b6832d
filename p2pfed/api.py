"""p2pfed from code: a node with one's own model or learner, a bootstrap peer, a snapshot.

    from p2pfed import api

    network = api.load_network("network.toml")
    with api.Node(network, api.load_node("node.toml")) as node:
        print(node.status()["doing"])
    snapshot = api.take_snapshot(network, network.bootstrap, "snapshot")

Blocking, so that no event loop is imposed: a peer runs trio in a thread of its own (`start`, or the
`with` block) or in the caller's thread (`run`). Everything raised on purpose is a `P2pfedError`.
"""

import functools
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import trio

from p2pfed.bootstrap import run_bootstrap
from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.config_file import dump_network, load_network, load_node
from p2pfed.control import ask, socket_path
from p2pfed.errors import ExitCode, LearnerError, LocalError, P2pfedError
from p2pfed.journal import Entry, read_journal
from p2pfed.node import run_node
from p2pfed.ports import Learner, Momentum, Progress, StepReport
from p2pfed.presets import create_network
from p2pfed.runtime import Log, Runtime, one_error
from p2pfed.shared import JOURNAL_NAME
from p2pfed.snapshot.collect import collect
from p2pfed.snapshot.peft_folder import Snapshot, write_peft_folder

__all__ = [
    "Bootstrap",
    "Entry",
    "Learner",
    "LearnerError",
    "Log",
    "Momentum",
    "NetworkConfig",
    "Node",
    "NodeConfig",
    "P2pfedError",
    "Progress",
    "Snapshot",
    "StepReport",
    "create_network",
    "dump_network",
    "events_of",
    "load_network",
    "load_node",
    "peers_of",
    "status_of",
    "take_snapshot",
]

STOP_S = 10.0
"""For a background peer to end: goodbyes and a checkpoint have 3 s of it, closing connections 2 s."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_Main = Callable[[Log, Callable[[Runtime], None], Callable[[], None]], Awaitable[None]]


def log_quietly(kind: str, fields: Mapping[str, object]) -> None:
    """The default: events go to the logger "p2pfed" at level INFO, which shows nothing unless asked to."""
    logging.getLogger("p2pfed").info("%s %s", kind, dict(fields))


class _Peer:
    """A peer's life, whatever its role. One object, one life."""

    def __init__(self, main: _Main, log: Log) -> None:
        self._main = main
        self._log = log
        self._runtime: Runtime | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._trio_thread = 0
        self._scope = trio.CancelScope()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._over = threading.Event()
        self._error: BaseException | None = None

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Run here until it is stopped from another thread or through its control socket.

        In the main thread SIGINT and SIGTERM stop it cleanly, within 5 s; a second one ends the process at once.
        """
        if self._token is not None:
            raise LocalError("a peer runs once: make a new one", ExitCode.USAGE)
        with _stopped_by_signals(self), one_error():
            trio.run(self._async_main, on_ready)

    def start(self, timeout_s: float = 600.0) -> None:
        """Run in a thread of its own; returns when it listens, with what went wrong before that raised.

        Loading a large model takes minutes, hence the time it has.
        """
        self._thread = threading.Thread(target=self._background, name="p2pfed", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout_s):
            self._ask_to_stop("not ready in time")
            raise LocalError(f"the peer was not ready within {timeout_s:g} s", ExitCode.NOT_RUNNING)
        if self._over.is_set():
            self._raise_error()

    def stop(self, reason: str = "stopped by the program") -> None:
        """Stop cleanly and wait for the end. Raises what ended the peer, if that was an error."""
        self._ask_to_stop(reason)
        if self._thread is not None:
            self._thread.join(STOP_S)
            if self._thread.is_alive():
                raise LocalError(f"the peer did not end within {STOP_S:g} s", ExitCode.BUG)
            self._raise_error()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until a background peer has ended: True, or False after `timeout_s`. Raises what ended it."""
        ended = self._over.wait(timeout_s)
        if ended:
            self._raise_error()
        return ended

    def status(self) -> dict[str, Any]:
        """The same as `p2pfed node status --format json`. Raises LocalError when it does not run."""
        status: dict[str, Any] = self._call(lambda runtime: runtime.status())
        return status

    def peers(self) -> list[dict[str, Any]]:
        """The same as `p2pfed node peers --format json`. Raises LocalError when it does not run."""
        rows: list[dict[str, Any]] = self._call(lambda runtime: runtime.peers())
        return rows

    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs with /p2p/ that other peers can be given. Raises LocalError when it does not run."""
        return tuple(self._call(lambda runtime: runtime.own_addresses()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _async_main(self, on_ready: Callable[[], None]) -> None:
        self._trio_thread = threading.get_ident()
        self._token = trio.lowlevel.current_trio_token()

        def keep(runtime: Runtime) -> None:
            self._runtime = runtime

        with self._scope:
            await self._main(self._log, keep, on_ready)

    def _background(self) -> None:
        try:
            self.run(self._ready.set)
        except BaseException as error:  # noqa: BLE001  handed over to whoever waits
            self._error = error
        finally:
            self._over.set()
            self._ready.set()

    def _ask_to_stop(self, reason: str) -> None:
        """From any thread, at any time. While the model is still loading there is nothing to keep: cancelled."""
        if self._token is None:
            self._scope.cancel()
            return
        if self._over.is_set():
            return

        def stop() -> None:
            if self._runtime is not None:
                self._runtime.stop(reason)
            else:
                self._scope.cancel()

        with suppress(trio.RunFinishedError):  # it ended by itself a moment ago
            self._token.run_sync_soon(stop)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _call(self, function: Callable[[Runtime], Any]) -> Any:
        if self._runtime is None or self._token is None:
            raise LocalError("this peer is not running", ExitCode.NOT_RUNNING)
        if threading.get_ident() == self._trio_thread:  # within `on_ready` or the log
            return function(self._runtime)
        try:
            return trio.from_thread.run_sync(function, self._runtime, trio_token=self._token)
        except trio.RunFinishedError:
            raise LocalError("this peer is not running any more", ExitCode.NOT_RUNNING) from None


class Node(_Peer):
    """A node: trains `learner`, or by default LoRA on the network's base model with the data `config` names.

    `rows`: of data behind `learner`; needed only where the network's gossip.weighting is "examples".
    """

    def __init__(
        self,
        network: NetworkConfig,
        config: NodeConfig,
        learner: Learner | None = None,
        log: Log = log_quietly,
        *,
        rows: int = 0,
    ) -> None:
        async def main(log: Log, on_runtime: Callable[[Runtime], None], on_ready: Callable[[], None]) -> None:
            await run_node(network, config, log, learner, rows, on_runtime, on_ready)

        super().__init__(main, log)


class Bootstrap(_Peer):
    """A bootstrap peer: newcomers find it first. Needs no torch. One serves as many networks as it is given."""

    def __init__(
        self, network: NetworkConfig | Sequence[NetworkConfig], config: NodeConfig, log: Log = log_quietly
    ) -> None:
        networks = (network,) if isinstance(network, NetworkConfig) else tuple(network)

        async def main(log: Log, on_runtime: Callable[[Runtime], None], on_ready: Callable[[], None]) -> None:
            await run_bootstrap(networks, config, log, on_runtime, on_ready)

        super().__init__(main, log)


def take_snapshot(
    network: NetworkConfig,
    bootstrap: Sequence[str],
    out: Path | str,
    *,
    by_examples: bool = False,
    settle_s: float = 5.0,
    deadline_s: float = 300.0,
) -> Snapshot:
    """Read every reachable node's adapter and write their mean to `out` as a PEFT folder with a manifest.

    `bootstrap`: multiaddrs with /p2p/ of bootstrap peers or nodes. Weights are equal, or each node's examples.
    Raises TransportError when no node could be read, LocalError when `out` exists or cannot be written.
    """
    out = Path(out)
    if out.exists():
        raise LocalError(f"{out} exists; choose another folder for the snapshot", ExitCode.DISK)
    collection = _run(
        functools.partial(
            collect, network, tuple(bootstrap), by_examples=by_examples, settle_s=settle_s, deadline_s=deadline_s
        )
    )
    return write_peft_folder(network, collection, out)


def status_of(home: Path | str) -> dict[str, Any]:
    """Status of the peer that runs with that state folder, in another process. Raises LocalError (not running)."""
    status: dict[str, Any] = ask(socket_path(Path(home), os.environ), "status")
    return status


def peers_of(home: Path | str) -> list[dict[str, Any]]:
    """The peers that peer knows. Raises LocalError (not running)."""
    rows: list[dict[str, Any]] = ask(socket_path(Path(home), os.environ), "peers")
    return rows


def events_of(home: Path | str) -> Iterator[Entry]:
    """The event log in that state folder, oldest first; the peer need not run."""
    return read_journal(Path(home) / JOURNAL_NAME)


def _run(main: Callable[[], Awaitable[Any]]) -> Any:
    with one_error():
        return trio.run(main)


@contextmanager
def _stopped_by_signals(peer: _Peer) -> Iterator[None]:
    """Only the main thread can have signal handlers; elsewhere nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        peer._ask_to_stop(signal.Signals(number).name)

    before = {each: signal.signal(each, on_signal) for each in STOP_SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
