"""How others reach this device: asks them, maps a port, reserves with relays, leaves relays again, and says it.

`Reachability` owns the verdict and what is done about it. Without anybody outside to ask it does nothing. It tells
others only addresses of this device's interfaces, those that dial-back verified, and circuits while there are no such.
"""

import ipaddress
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from p2pfed.core.messages import ADDRESSES_MAX
from p2pfed.errors import P2pfedError
from p2pfed.net.address import Address, is_circuit, parse_address
from p2pfed.net.dial_order import direct_only
from p2pfed.net.dialback import CLAIMS_MAX, Answer, DialBackServer, ask_dialback
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.portmap import Mapping, ask_mapping, drop_mapping
from p2pfed.net.punch import Puncher
from p2pfed.net.relay_client import Relay, RelayClient
from p2pfed.net.relay_server import RelayServer
from p2pfed.net.verdict import Nat, Observation, Reach, Verdict, find
from p2pfed.ports import PeerId

log = logging.getLogger("p2pfed.net")

OBSERVERS_MAX = 5
"""Asked in one round; most of those who tried an address decide."""
OBSERVERS_WANTED = 2
"""Fewer cannot tell a NAT that gives each peer another port."""
RECHECK_S = 600.0
"""Routers restart and networks change; what others tell of it takes this long at worst."""
RECHECK_POOR_S = 120.0
"""While nobody answered or no way in was found."""
WATCH_S = 20.0
"""Between two looks at this device's own addresses: a laptop that came home is told of within half a minute."""
SETTLE_S = 1.0
"""After a new neighbour or another address, until who else comes is asked too."""
ROUND_GAP_S = 10.0
"""Between two rounds, however much changes: answerers count questions."""
OTHERS_S = 6.0
"""After the first answer, for the others: a dial-back's own time and a bit. Somebody is always gone."""


@dataclass(frozen=True, slots=True)
class Observer:
    """A peer to ask, and an address it is connected at or can be dialled at."""

    peer: PeerId
    address: str


class Reachability:
    """Make it before the transport runs, then `run` it.

    `observers`: whom to ask, best first. `relays`: who may be asked for a reservation (none: a relay itself). `told`:
    what a peer says of its own addresses. `on_change` when the verdict or `addresses()` changed. `on_direct`: a link
    through a relay may move. `serve_relay`: carry others' circuits.
    """

    def __init__(
        self,
        transport: Libp2pTransport,
        *,
        observers: Callable[[], Sequence[Observer]],
        relays: Callable[[], Sequence[Relay]],
        told: Callable[[PeerId], Sequence[str]],
        wall_clock: Callable[[], float],
        rng: random.Random,
        on_change: Callable[[Reach], None] = lambda reach: None,
        on_direct: Callable[[PeerId, str], None] = lambda peer, address: None,
        serve_relay: bool = False,
        portmap: bool = True,
    ) -> None:
        self._transport = transport
        self._observers = observers
        self._on_change = on_change
        self._portmap = portmap
        self._finding = Observation()
        self._mapping: Mapping | None = None
        self._wake = trio.Event()
        self._said: tuple[Reach, tuple[str, ...]] = (Reach(), ())
        DialBackServer(transport)
        self.relay = RelayServer(transport, wall_clock, addresses=self.addresses) if serve_relay else None
        self._puncher = Puncher(
            transport,
            seen=lambda: self._finding.seen,
            told=lambda peer: direct_only(told(peer), transport.addresses()),
            on_direct=on_direct,
            may_punch=lambda: self._finding.nat is not Nat.SYMMETRIC,
        )
        self._client = RelayClient(
            transport,
            relays,
            wall_clock=wall_clock,
            rng=rng,
            on_change=self._say,
            on_circuit=self._puncher.start,
        )

    @property
    def reach(self) -> Reach:
        finding = self._finding
        hosts = tuple(parse_address(address).host for _, address in self._client.relays)
        verified = next(iter(finding.reached), None)
        own = self._own_hosts()
        if verified is not None:
            # Of several the one that is not a private address explains more.
            verified = max(finding.reached, key=lambda text: parse_address(text).host not in own)
            direct = parse_address(verified).host in own
            verdict = Verdict.DIRECT if direct else Verdict.MAPPED
        elif finding.answers:
            verdict = Verdict.RELAY_ONLY if hosts else Verdict.UNREACHABLE
        else:
            verdict = Verdict.UNKNOWN
        by = self._mapping.by if self._mapping is not None and str(self._mapping.external) == verified else None
        external = verified or (str(finding.external) if finding.external is not None else None)
        port = self._transport.paths.sources[0][1] if self._transport.paths.sources else 0
        return Reach(verdict, finding.nat, external, hosts, by, port)

    def addresses(self) -> tuple[str, ...]:
        """To tell others: near ones first, then what dial-back verified, then circuits where nothing was."""
        finding = self._finding
        own = [text for text in self._transport.addresses() if text not in finding.failed or not _is_global(text)]
        circuits = () if finding.reached else self._client.addresses()
        outside = [*finding.reached, *circuits]
        return tuple(dict.fromkeys([*own[: ADDRESSES_MAX - len(outside)], *outside]))[:ADDRESSES_MAX]

    def look(self) -> None:
        """Somebody new may be asked, or an address changed: look again soon."""
        self._wake.set()

    def told_anew(self, peer: PeerId) -> None:
        """`peer` said where it can be dialled: a connection to it that is relayed may not have to be."""
        self._puncher.look(peer)

    async def run(self) -> None:
        """Until cancelled; gives a mapped port back then."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._client.run)
                nursery.start_soon(self._puncher.run)
                if self.relay is not None:
                    nursery.start_soon(self.relay.run)
                await self._keep_looking()
        finally:
            if self._mapping is not None:
                with trio.CancelScope(shield=True):
                    await drop_mapping(self._mapping)

    async def _keep_looking(self) -> None:
        while True:
            await self._until_due()
            await self.check()
            await trio.sleep(ROUND_GAP_S)

    async def _until_due(self) -> None:
        """Time has passed, this device's own addresses are others, or somebody new may be asked and is needed."""
        own, due = tuple(self._transport.addresses()), trio.current_time() + self._pause_s()
        while trio.current_time() < due and own == tuple(self._transport.addresses()):
            with trio.move_on_at(min(due, trio.current_time() + WATCH_S)):
                await self._wake.wait()
            if self._wake.is_set():
                self._wake = trio.Event()
                if not self._knows_enough():
                    await trio.sleep(SETTLE_S)
                    return

    def _pause_s(self) -> float:
        return RECHECK_S if self._knows_enough() else RECHECK_POOR_S

    def _knows_enough(self) -> bool:
        """A public device needs one to say so; what a NAT does takes two to see."""
        verdict, answers = self.reach.verdict, self._finding.answers
        return verdict is Verdict.DIRECT or (
            verdict in (Verdict.MAPPED, Verdict.RELAY_ONLY) and answers >= OBSERVERS_WANTED
        )

    async def check(self) -> None:
        """One round of questions, and what is done about the answers; `run` calls it by itself."""
        observers = list(self._observers())[:OBSERVERS_MAX]
        if not observers:
            return
        claims = self._claims(self._finding)
        finding = await self._ask(observers, claims)
        if finding.answers and not finding.reached:
            self._client.want(True)  # so that it stands by the time there is a verdict
        if not finding.reached and (more := self._claims(finding)) != claims:
            finding = await self._ask(observers, more)
        if not finding.answers and self._finding.answers:
            return  # all are gone: what they said is still the best guess
        self._conclude(finding)
        if finding.answers and (not finding.reached or self._mapping is not None) and finding.nat is not Nat.NONE:
            await self._map(observers, finding)

    def _conclude(self, finding: Observation) -> None:
        news = finding.seen != self._finding.seen
        self._finding = finding
        if news:
            self._puncher.look()
        self._client.want(bool(finding.answers) and not finding.reached)
        self._say()

    async def _map(self, observers: Sequence[Observer], finding: Observation) -> None:
        """Ask the router for a port, or to keep it; what it says counts once somebody came in by it."""
        if not self._portmap or not self._transport.paths.sources or not _is_global(str(finding.external)):
            return
        self._mapping = await ask_mapping(self._transport.paths.sources[0][1])
        if self._mapping is None or finding.reached or finding.external is None:
            return
        if self._mapping.external.host == finding.external.host:  # else it is a router behind a router
            again = await self._ask(observers, self._claims(finding))
            if again.answers:
                self._conclude(again)

    async def _ask(self, observers: Sequence[Observer], claims: tuple[str, ...]) -> Observation:
        answers: list[Answer] = []

        async def ask(observer: Observer) -> None:
            try:
                answers.append(await ask_dialback(self._transport, observer.peer, observer.address, claims))
                scope = nursery.cancel_scope
                scope.deadline = min(scope.deadline, trio.current_time() + OTHERS_S)
            except P2pfedError as error:
                log.debug("no dial-back by %s: %s", observer.peer, error)

        async with trio.open_nursery() as nursery:
            for observer in observers:
                nursery.start_soon(ask, observer)
        return find(answers, self._own_hosts())

    def _claims(self, finding: Observation) -> tuple[str, ...]:
        """What may be dialled from outside, likeliest first: mapped, seen, the listening port at the host seen, own."""
        claims: list[str] = []
        if finding.external is not None:
            seen = finding.external
            if self._mapping is not None and self._mapping.external.host == seen.host:
                claims.append(str(self._mapping.external))
            claims += [text for text in finding.seen if parse_address(text).host == seen.host][:1]
            claims += [
                str(Address(seen.kind, seen.host, port))
                for own, port in self._transport.paths.sources
                if (":" in own) == (seen.kind == "ip6")
            ][:1]
        return tuple(dict.fromkeys([*claims, *self._transport.addresses()]))[:CLAIMS_MAX]

    def _own_hosts(self) -> frozenset[str]:
        return frozenset(parse_address(text).host for text in self._transport.addresses())

    def _say(self) -> None:
        said = (self.reach, self.addresses())
        if said != self._said:
            self._said = said
            self._on_change(said[0])


def whom_to_ask(bootstrap: Sequence[Relay], linked: Sequence[Relay]) -> list[Observer]:
    """Bootstrap peers first, those with a link before the others; then neighbours, where the internet is between us."""
    ways = {peer: address for peer, address in linked if address and not is_circuit(address)}
    known = sorted(bootstrap, key=lambda relay: relay[0] not in ways)
    first = {peer: Observer(peer, ways.get(peer, address)) for peer, address in known}
    others = [Observer(peer, way) for peer, way in ways.items() if peer not in first and _is_global(way)]
    return [*first.values(), *others]


def _is_global(text: str) -> bool:
    """Of an address without a name."""
    return ipaddress.ip_address(parse_address(text).host).is_global
