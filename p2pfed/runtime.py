"""What a running peer is made of, whatever its role: transport, driver, machine, discovery, control, journal.

`node` and `bootstrap` are the two composition roots that fill it. Clocks, chance and the environment
enter the program here and there, and nowhere below.
"""

import dataclasses
import os
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pfed import __version__
from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.control import Handler, serve_control, socket_path
from p2pfed.core.events import Event, FoundBy, PeerFound, Report, Started, StopAsked
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, PeerRecord, Role
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.core.view import PeerEntry
from p2pfed.errors import P2pfedError
from p2pfed.journal import Journal
from p2pfed.net.address import parse_bootstrap
from p2pfed.net.driver import Driver
from p2pfed.ports import Encoding, Mixer, PeerId, Transport
from p2pfed.store import Home

JOURNAL_NAME = "events.jsonl"
NOTICES_MAX = 8
"""Sentences kept for `status`: what an operator should act on, newest last."""
CLOCK_SKEW_MAX_S = 3600.0
"""A neighbour's clock further off than this is worth a sentence."""
FIGURES_INTERVAL_S = 60.0
"""Between two entries of the event log with the network-wide figures: 1,440 a day."""

SWAPPED_KEPT = 128
"""As many as a view holds."""

Log = Callable[[str, Mapping[str, object]], None]


@dataclass(slots=True)
class Notices:
    """Sentences for the operator, each once."""

    sentences: deque[str] = field(default_factory=lambda: deque(maxlen=NOTICES_MAX))

    def add(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.append(sentence)


@dataclass(slots=True)
class SwapTotals:
    """What `core.statistics` does not tell apart, summed over the event log's entries of this run."""

    declined: dict[str, int] = field(default_factory=dict)
    """By reason."""
    mixed: int = 0
    kept_sum: float = 0.0
    swapped_at: dict[PeerId, float] = field(default_factory=dict)
    """When the last swap with each peer was finished; of the last SWAPPED_KEPT peers."""

    def add(self, report: Report, now: float) -> None:
        match report.kind:
            case "swap-finished":
                peer = PeerId(str(report.fields["peer"]))
                self.swapped_at.pop(peer, None)
                self.swapped_at[peer] = now
                if len(self.swapped_at) > SWAPPED_KEPT:
                    del self.swapped_at[next(iter(self.swapped_at))]
            case "swap-declined":
                reason = str(report.fields["reason"])
                self.declined[reason] = self.declined.get(reason, 0) + 1
            case "mixed":
                self.mixed += 1
                self.kept_sum += float(report.fields["kept"] or 0.0)

    @property
    def kept(self) -> float | None:
        """Mean share of neighbours' differences that clipping left; None before the first mix."""
        return self.kept_sum / self.mixed if self.mixed else None


class Runtime:
    """One peer from start to stop. `run` returns after a clean stop; its errors are P2pfedError."""

    def __init__(
        self,
        role: Role,
        network: NetworkConfig,
        config: NodeConfig,
        settings: PeerSettings,
        home: Home,
        transport: Transport,
        mixer: Mixer | None,
        log: Log,
    ) -> None:
        self.role = role
        self.network = network
        self.config = config
        self.home = home
        self.transport = transport
        self.notices = Notices()
        self._totals = SwapTotals()
        self._log = log
        self._journal = Journal(home.path / JOURNAL_NAME)
        self._started_at = time.monotonic()
        self._rng = random.Random(secrets.randbits(64))
        self.name = config.name or f"{role.value}-{transport.peer[-6:]}"
        self.hello = Hello(
            version=PROTOCOL_VERSION,
            network_id=network.network_id,
            network=network.fields(),
            fingerprint=tuple(sorted(mixer.fingerprint().items())) if mixer is not None else (),
            role=role,
            encoding=encoding_of(network, config),
            instance=self._rng.getrandbits(53),
            name=self.name,
            addresses=(),
            time_s=0.0,
        )
        self.state = PeerState(self.hello, transport.peer, settings, self._rng)
        self.driver = Driver(
            transport,
            network.network_id,
            on_report=self._on_report,
            on_remember=self._on_remember,
            wall_clock=time.time,
        )
        if mixer is not None:
            self.driver.attach(mixer, self.hello.encoding, home.save_checkpoint, config.checkpoint_interval_s)
        self._bootstrap = bootstrap_peers(network, config)
        self._stop_reason: str | None = None
        self._stop_asked = trio.Event()

    async def run(self, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Listen, find peers, work, until `stop`. Cancelling it ends it too, without goodbyes and a last checkpoint."""
        with self._journal, one_error():
            async with self.transport.running(), trio.open_nursery() as nursery:
                await nursery.start(
                    serve_control,  # type: ignore[arg-type]  # trio-typing hides trio's own TaskStatus
                    socket_path(self.home.path, os.environ),
                    self._commands(),
                )
                if self.config.mdns:
                    nursery.start_soon(self._browse)
                nursery.start_soon(self._pass_on_stop)
                if self.role is Role.NODE:
                    nursery.start_soon(self._tell_figures)
                self._log(
                    "started",
                    {
                        "name": self.name,
                        "network": self.network.name,
                        "listening": " ".join(self.own_addresses()),
                        "home": str(self.home.path),
                    },
                )
                on_ready()
                await self.driver.run(self.state, self.hello, self._first_events())
                self._log("stopped", {"reason": self._stop_reason, "kept": self._kept()})
                nursery.cancel_scope.cancel()

    def stop(self, reason: str) -> None:
        """From the trio thread, at any time; takes effect once running. A second call has no effect."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stop_asked.set()

    def own_addresses(self) -> list[str]:
        """Multiaddrs with /p2p/: what one hands to others."""
        return [f"{address}/p2p/{self.transport.peer}" for address in self.transport.addresses()]

    def status(self) -> dict[str, object]:
        """What `p2pfed node status` shows: plain values only."""
        state, worker = self.state, self.driver.worker
        neighbours = state.membership.neighbours()
        progress = worker.mixer.progress() if worker is not None else None
        return {
            "version": __version__,
            "name": self.name,
            "peer": self.transport.peer,
            "role": self.role.value,
            "network": self.network.name,
            "network_id": self.network.network_id,
            "home": str(self.home.path),
            "addresses": self.own_addresses(),
            "uptime_s": round(time.monotonic() - self._started_at, 1),
            "doing": self._doing(len(neighbours)),
            "training_over": state.training_over,
            "steps": progress.steps if progress is not None else None,
            "examples": progress.examples if progress is not None else None,
            "mixes": progress.mixes if progress is not None else None,
            "loss": worker.loss if worker is not None else None,
            "neighbours": len(neighbours),
            "linked": len(state.membership.view.linked()),
            "known": len(state.membership.view),
            "encoding": self.hello.encoding.value,
            "swaps": {**state.statistics.as_fields(), "declined_by": self._totals.declined, "kept": self._totals.kept},
            "estimate": self._figures(),
            "bytes_sent": self.driver.bytes_sent,
            "bytes_received": self.driver.bytes_received,
            "partition": suspicion.sentence if (suspicion := state.membership.watch.suspicion) is not None else None,
            "notices": list(self.notices.sentences),
        }

    def peers(self) -> list[dict[str, object]]:
        """What `p2pfed node peers` shows, linked ones first."""
        now = trio.current_time()
        sessions = {session.number: session for session in self.driver.sessions.values()}
        rows: list[dict[str, object]] = []
        for entry in sorted(self.state.membership.view.entries(), key=lambda entry: entry.link is None):
            session = sessions.get(entry.link) if entry.link is not None else None
            swapped_at = self._totals.swapped_at.get(entry.peer)
            rows.append(
                {
                    "peer": entry.peer,
                    "name": entry.name,
                    "role": entry.role.value if entry.role is not None else None,
                    "linked": entry.link is not None,
                    "encoding": self._link_encoding(entry),
                    "address": session.link.address if session is not None else next(iter(entry.addresses), None),
                    "found_by": entry.found_by.value,
                    "path": path_of(session.link.address) if session is not None else None,
                    "suspected": entry.misses > 0,
                    "rtt_s": round(entry.rtt_s, 4) if entry.rtt_s is not None else None,
                    "heard_s_ago": round(now - entry.heard_at, 1) if entry.linked_at is not None else None,
                    "swapped_s_ago": round(now - swapped_at, 1) if swapped_at is not None else None,
                    "bytes_sent": session.bytes_sent if session is not None else 0,
                    "bytes_received": session.bytes_received if session is not None else 0,
                    "refusal": entry.refusal,
                    "last_failure": entry.last_failure,
                }
            )
        return rows

    def _link_encoding(self, entry: PeerEntry) -> str | None:
        """None where nothing is swapped: no link, or one of the two is no node."""
        if entry.link is None or self.role is not Role.NODE or entry.role is not Role.NODE:
            return None
        return self.state.link_encoding(entry.peer).value

    def _figures(self) -> dict[str, float | None] | None:
        """The whole network as this node estimates it; None before its first swap."""
        figures = self.state.estimate.figures()
        return dataclasses.asdict(figures) if figures is not None else None

    def _first_events(self) -> list[Event]:
        found = [PeerFound(peer, (address,), FoundBy.BOOTSTRAP) for peer, address in self._bootstrap]
        return [*found, Started(self.home.load_peers())]

    def _doing(self, neighbours: int) -> str:
        if self.role is not Role.NODE:
            return f"introducing newcomers, {len(self.state.membership.view.linked())} linked"
        what = "training"
        if self.state.training_over:
            what = f"training over after {self.state.steps} steps, gossiping"
        return f"{what} alone: no neighbour yet" if not neighbours else f"{what} with {neighbours} neighbours"

    def _kept(self) -> str:
        worker = self.driver.worker
        if worker is None:
            return f"identity and known peers in {self.home.path}"
        if worker.over.is_set():
            return f"checkpoint of step {worker.saved_steps}, identity and known peers in {self.home.path}"
        at = f"that of step {worker.saved_steps}" if worker.saved_steps is not None else "the one before this start"
        return f"a step was under way and is lost; the last checkpoint is {at}, in {self.home.path}"

    async def _pass_on_stop(self) -> None:
        """Waits where the driver's queue is full: a stop must not get lost."""
        await self._stop_asked.wait()
        await self.driver.tell(StopAsked(self._stop_reason or "asked to stop"))

    def _commands(self) -> dict[str, Handler]:
        async def status(_: Mapping[str, object]) -> object:
            return self.status()

        async def peers(_: Mapping[str, object]) -> object:
            return self.peers()

        async def stop(_: Mapping[str, object]) -> object:
            self.stop("asked to stop")
            return {"stopping": True, "name": self.name}

        return {"status": status, "peers": peers, "stop": stop}

    async def _tell_figures(self) -> None:
        while True:
            await trio.sleep(FIGURES_INTERVAL_S)
            if figures := self._figures():
                self._on_report(Report("network", {**figures}))

    async def _browse(self) -> None:
        from p2pfed.net.discovery import Announcement, MdnsDiscovery  # zeroconf, only where it is used

        addresses = tuple(self.transport.addresses())
        announcement = Announcement(self.transport.peer, self.network.network_id, self.hello.instance, addresses)
        only_here = all(address.startswith("/ip4/127.") for address in addresses)
        mdns = MdnsDiscovery(announcement, self._on_mdns, loopback=only_here)
        async with mdns.running():
            for warning in mdns.warnings:
                self.notices.add(warning)
                self._log("mdns", {"warning": warning})
            await trio.sleep_forever()

    def _on_mdns(self, peer: PeerId, addresses: tuple[str, ...], instance: int) -> None:
        self.driver.tell_nowait(PeerFound(peer, addresses, FoundBy.MDNS, instance))

    def _on_remember(self, peers: tuple[PeerRecord, ...]) -> None:
        self.home.save_peers(peers)

    def _on_report(self, report: Report) -> None:
        self._journal.write(report.kind, report.fields, time.time())
        self._log(report.kind, report.fields)
        self._totals.add(report, trio.current_time())
        fields = report.fields
        match report.kind:
            case "identity-in-use":
                self.notices.add(
                    f"Another device runs with this node's identity ({fields['where']}): stop one of the two and "
                    "give it an identity of its own."
                )
            case "identity-copied":
                self.notices.add(f"Two devices run with the identity {fields['peer']}; the second one is refused.")
            case "peer-refused":
                self.notices.add(f"Refused {fields['peer']}: {fields['difference']}.")
            case "neighbour-linked" if abs(float(fields["clock_skew_s"] or 0.0)) > CLOCK_SKEW_MAX_S:
                self.notices.add(f"The clock of {fields['name']} differs from ours by {fields['clock_skew_s']} s.")


def path_of(address: str) -> str:
    """`direct`, or through which relay: the multiaddr up to the circuit."""
    relay, circuit, _ = address.partition("/p2p-circuit")
    return f"relayed through {relay}" if circuit else "direct"


def encoding_of(network: NetworkConfig, config: NodeConfig) -> Encoding:
    """The coarser one of the network's and the device's."""
    return Encoding(network.gossip.encoding).coarser(Encoding(config.encoding or "float32"))


def bootstrap_peers(network: NetworkConfig, config: NodeConfig) -> list[tuple[PeerId, str]]:
    """Peer and address of every configured bootstrap peer. Raises ConfigError for the first that cannot be dialled."""
    return [parse_bootstrap(text) for text in dict.fromkeys((*config.bootstrap, *network.bootstrap))]


@contextmanager
def one_error() -> Iterator[None]:
    """Nurseries wrap errors in groups: a P2pfedError or Ctrl-C comes out alone, anything else as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours, others = group.split((P2pfedError, KeyboardInterrupt))
        if ours is None or others is not None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__


def default_home(root: Path, network: NetworkConfig, name: str) -> Path:
    """State folder of one node or bootstrap peer below the user's state folder."""
    return root / network.name / name
