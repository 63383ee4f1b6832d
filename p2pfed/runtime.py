"""What a running peer is made of, whatever its role: transport, driver, machine, discovery, control, journal.

`node` and `bootstrap` are the two composition roots that fill it. Clocks, chance and the environment
enter the program here and there, and nowhere below.
"""

import dataclasses
import ipaddress
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from p2pfed import __version__
from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.control import Handler, serve_control, socket_path
from p2pfed.core.events import Event, FoundBy, PeerFound, Report, Started, StopAsked
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, PeerRecord, Role
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.errors import P2pfedError
from p2pfed.net.address import parse_address
from p2pfed.net.dht.rounds import keep_fresh
from p2pfed.net.driver import Driver
from p2pfed.net.interfaces import interface_changes, missing_interfaces
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.seeds import Seeds
from p2pfed.net.verdict import Verdict
from p2pfed.notices import Notices
from p2pfed.outside import Outside
from p2pfed.peer_rows import peer_rows
from p2pfed.peer_search import PeerSearch
from p2pfed.ports import Encoding, Mixer, PeerId
from p2pfed.shared import Shared
from p2pfed.store import Home
from p2pfed.totals import SwapTotals

if TYPE_CHECKING:
    from p2pfed.net.discovery import MdnsDiscovery

CLOCK_SKEW_MAX_S = 3600.0
"""A neighbour's clock further off than this is worth a sentence."""
FIGURES_INTERVAL_S = 60.0
"""Between two entries of the event log with the network-wide figures: 1,440 a day."""

NETWORK_FIGURES = ("network", "network_id", "neighbours", "linked", "known", "bytes_sent", "bytes_received")
"""What `status` tells of each network, where several share a peer."""

Log = Callable[[str, Mapping[str, object]], None]


class Runtime:
    """One peer from start to stop. `run` returns after a clean stop; its errors are P2pfedError."""

    def __init__(
        self,
        role: Role,
        network: NetworkConfig,
        config: NodeConfig,
        settings: PeerSettings,
        home: Home,
        transport: Libp2pTransport,
        mixer: Mixer | None,
        log: Log,
        shared: Shared,
        beside: Sequence["Runtime"] = (),
    ) -> None:
        """`beside`: other networks on the same transport; they run, are asked and stop with this one."""
        self.role = role
        self.network = network
        self.config = config
        self.home = home
        self.transport = transport
        self.notices = Notices()
        self._totals = SwapTotals()
        self._log = log
        self._journal = shared.journal
        self.dht = shared.dht
        self.beside = tuple(beside)
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
            addresses=self.told_addresses,
            desk=shared.desk,
        )
        if mixer is not None:
            self.driver.attach(mixer, self.hello.encoding, home.save_checkpoint, config.checkpoint_interval_s)
        self._seeds = bootstrap_peers(network, config)
        self._search = PeerSearch(
            role, transport.peer, network.network_id, self._seeds, self.dht, self.notices, self._rng
        )
        self.outside: Outside | None = None
        """How others reach this peer; the networks of one transport have one. None before it runs."""
        self._stop_reason: str | None = None
        self._stop_asked = trio.Event()

    async def run(self, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Listen, find peers, work, until `stop`. Cancelling it ends it too, without goodbyes and a last checkpoint."""
        outside = self._make_outside()
        for each in (self, *self.beside):
            each.outside = outside
        with self._journal, one_error():
            async with self.transport.running(), trio.open_nursery() as nursery:
                await nursery.start(
                    serve_control,  # type: ignore[arg-type]  # trio-typing hides trio's own TaskStatus
                    socket_path(self.home.path, os.environ),
                    self._commands(),
                )
                nursery.start_soon(self._pass_on_stop)
                nursery.start_soon(outside.run)
                nursery.start_soon(keep_fresh, self.dht, self._rng)
                for each in (self, *self.beside):
                    each._start(nursery)
                self._log(
                    "started",
                    {
                        "name": self.name,
                        "network": ", ".join(each.network.name for each in (self, *self.beside)),
                        "listening": " ".join(self.own_addresses()),
                        "home": str(self.home.path),
                    },
                )
                on_ready()
                async with trio.open_nursery() as machines:
                    for each in (self, *self.beside):
                        machines.start_soon(each.driver.run, each.state, each.hello, each._first_events())
                self._log("stopped", {"reason": self._stop_reason, "kept": self._kept()})
                nursery.cancel_scope.cancel()

    def _make_outside(self) -> Outside:
        return Outside(
            self.role,
            self.transport,
            self.driver,
            self.state.membership,
            lambda: self._seeds.known(),
            portmap=self.config.portmap,
            on_report=self._on_report,
            wall_clock=time.time,
            rng=self._rng,
        )

    def _start(self, nursery: trio.Nursery) -> None:
        """What finds peers for this network, and tells of it."""
        nursery.start_soon(self._follow_interfaces)
        if self.role is Role.NODE:
            nursery.start_soon(self._tell_figures)
        nursery.start_soon(
            self._search.run,
            self.state.membership.view,
            self.told_addresses,
            lambda: len(self.state.membership.neighbours()) < self.config.neighbours_max,
            self.driver.tell_nowait,
            lambda sentence: self._log("seeds", {"problem": sentence}),
        )

    def stop(self, reason: str) -> None:
        """From the trio thread, at any time; takes effect once running. A second call has no effect."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stop_asked.set()

    def own_addresses(self) -> list[str]:
        """Multiaddrs with /p2p/: what one hands to others."""
        return [f"{address}/p2p/{self.transport.peer}" for address in self.told_addresses()]

    def told_addresses(self) -> tuple[str, ...]:
        """What others are told, without /p2p/."""
        return self.outside.addresses() if self.outside is not None else tuple(self.transport.addresses())

    def status(self) -> dict[str, object]:
        """What `p2pfed node status` shows: plain values only."""
        status = self._own_status()
        if self.beside:
            others = [each._own_status() for each in self.beside]
            status["networks"] = [{name: each[name] for name in NETWORK_FIGURES} for each in (status, *others)]
            status["notices"] = list(
                dict.fromkeys(each for one in (self, *self.beside) for each in one._notices_named())
            )
        return status

    def _own_status(self) -> dict[str, object]:
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
            "reachability": self.outside.status() if self.outside is not None else None,
            "relay": self.outside.relayed() if self.outside is not None else None,
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
            "dht": {"servers": len(self.dht.table), "providers": len(self.dht.providers), "serves": self.dht.serves},
            "notices": self.notices.sentences,
        }

    def _notices_named(self) -> list[str]:
        return [f"{self.network.name}: {sentence}" for sentence in self.notices.sentences]

    def peers(self) -> list[dict[str, object]]:
        """What `p2pfed node peers` shows, linked ones first."""
        if self.beside:
            return [{**row, "network": each.network.name} for each in (self, *self.beside) for row in each._own_peers()]
        return self._own_peers()

    def _own_peers(self) -> list[dict[str, object]]:
        return peer_rows(self.state, self.driver.sessions, self._totals.swapped_at, trio.current_time())

    def _figures(self) -> dict[str, float | None] | None:
        """The whole network as this node estimates it; None before its first swap."""
        figures = self.state.estimate.figures()
        return dataclasses.asdict(figures) if figures is not None else None

    def _first_events(self) -> list[Event]:
        remembered = self.home.load_peers() if self.role is Role.NODE else ()
        return [*self._search.first_events(), Started(remembered)]

    def _doing(self, neighbours: int) -> str:
        if self.role is not Role.NODE:
            linked = sum(len(each.state.membership.view.linked()) for each in (self, *self.beside))
            networks = f" of {1 + len(self.beside)} networks" if self.beside else ""
            return f"introducing newcomers{networks}, {linked} linked"
        what = "training"
        if self.state.training_over:
            what = f"training over after {self.state.steps} steps, gossiping"
        return f"{what} alone: no neighbour yet" if not neighbours else f"{what} with {neighbours} neighbours"

    def _kept(self) -> str:
        worker = self.driver.worker
        if worker is None:
            return f"identity in {self.home.path}"
        if worker.over.is_set():
            return f"checkpoint of step {worker.saved_steps}, identity and known peers in {self.home.path}"
        at = f"that of step {worker.saved_steps}" if worker.saved_steps is not None else "the one before this start"
        return f"a step was under way and is lost; the last checkpoint is {at}, in {self.home.path}"

    async def _pass_on_stop(self) -> None:
        """Waits where the driver's queue is full: a stop must not get lost."""
        await self._stop_asked.wait()
        for each in (self, *self.beside):
            await each.driver.tell(StopAsked(self._stop_reason or "asked to stop"))

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

    async def _follow_interfaces(self) -> None:
        """Tell others, and the LAN, the addresses there are now; look for peers on the LAN."""
        async with AsyncExitStack() as stack:
            if missing := missing_interfaces(self.config.interfaces):
                self.notices.add(missing)
            mdns = self._mdns() if self.config.mdns else None
            if mdns is not None:
                await stack.enter_async_context(mdns.running())
            async for interfaces in interface_changes(self.config.interfaces):
                if self.transport.refresh_addresses():
                    self._log("addresses-changed", {"listening": " ".join(self.own_addresses())})
                if mdns is not None:
                    mdns.follow(interfaces)

    def _mdns(self) -> "MdnsDiscovery":
        from p2pfed.net.discovery import MdnsDiscovery, Own  # only where it is used

        listening = tuple(parse_address(each) for each in self.transport.listening())
        own = Own(self.transport.peer, self.network.network_id, self.hello.instance, listening)
        return MdnsDiscovery(own, self._on_mdns, self._on_mdns_problem)

    def _on_mdns_problem(self, sentence: str) -> None:
        self.notices.add(sentence)
        self._log("mdns", {"warning": sentence})

    def _on_mdns(self, peer: PeerId, addresses: tuple[str, ...], instance: int) -> None:
        self.driver.tell_nowait(PeerFound(peer, addresses, FoundBy.MDNS, instance))

    def _on_remember(self, peers: tuple[PeerRecord, ...]) -> None:
        if self.role is Role.NODE:  # a bootstrap peer dials nobody: it has nothing to remember
            self.home.save_peers(peers)

    def _on_report(self, report: Report) -> None:
        self._journal.write(report.kind, report.fields, time.time())
        self._log(report.kind, report.fields)
        self._totals.add(report, trio.current_time())
        fields = report.fields
        if report.kind == "neighbour-linked" and self.outside is not None:
            self.outside.reach.look()
        match report.kind:
            case "reachability" if _is_reached(fields["verdict"], fields["external"]):
                self.dht.serve()  # a server that everybody can dial makes the DHT better
            case "identity-in-use":
                self.notices.add(
                    f"Another device runs with this node's identity ({fields['where']}): stop one of the two and "
                    "give it an identity of its own."
                )
            case "identity-copied":
                self.notices.add(f"Two devices run with the identity {fields['peer']}; the second one is refused.")
            case "peer-refused":
                self.notices.add(f"Refused {fields['peer']}: {fields['difference']}.", f"refused {fields['peer']}")
            case "neighbour-linked":
                self.notices.clear(f"refused {fields['peer']}")
                self._note_clock(fields)

    def _note_clock(self, fields: Mapping[str, str | int | float | bool | None]) -> None:
        if abs(float(fields["clock_skew_s"] or 0.0)) > CLOCK_SKEW_MAX_S:
            self.notices.add(f"The clock of {fields['name']} differs from ours by {fields['clock_skew_s']} s.")


def _is_reached(verdict: object, external: object) -> bool:
    """From the internet, not just from the LAN."""
    if verdict not in (Verdict.DIRECT, Verdict.MAPPED) or not isinstance(external, str):
        return False
    return ipaddress.ip_address(parse_address(external).host).is_global


def encoding_of(network: NetworkConfig, config: NodeConfig) -> Encoding:
    """The coarser one of the network's and the device's."""
    return Encoding(network.gossip.encoding).coarser(Encoding(config.encoding or "float32"))


def bootstrap_peers(network: NetworkConfig, config: NodeConfig) -> Seeds:
    """The peers to try first, of both files. Raises ConfigError for the first that cannot be understood."""
    return Seeds((*config.bootstrap, *network.bootstrap))


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
