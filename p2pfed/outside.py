"""A peer as others reach it: `net.reach` and `net.announce` fitted to a driver and its membership. Runtime has one."""

import random
from collections.abc import Callable, Sequence

import trio

from p2pfed.core.events import FoundBy, PeerFound, Report
from p2pfed.core.membership import Membership
from p2pfed.core.messages import ADDRESSES_MAX, Role
from p2pfed.net.announce import Announcer
from p2pfed.net.driver import Driver
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.reach import Observer, Reachability, whom_to_ask
from p2pfed.net.relay_client import Relay
from p2pfed.net.session import Session
from p2pfed.net.verdict import Reach, Verdict
from p2pfed.ports import PeerId

TELL_INTERVAL_S = 1.0
"""Between two looks at what linked peers were told: a comparison each."""


class Outside:
    """Make it before the transport runs. `bootstrap`: peers and addresses, as known at the moment."""

    def __init__(
        self,
        role: Role,
        transport: Libp2pTransport,
        driver: Driver,
        membership: Membership,
        bootstrap: Callable[[], Sequence[Relay]],
        *,
        portmap: bool,
        on_report: Callable[[Report], None],
        wall_clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._driver = driver
        self._membership = membership
        self._bootstrap = bootstrap
        self._on_report = on_report
        self.reach = Reachability(
            transport,
            observers=self._observers,
            relays=bootstrap if role is Role.NODE else tuple,
            told=self._told,
            wall_clock=wall_clock,
            rng=rng,
            on_change=self._on_change,
            on_direct=driver.leave_relay,
            serve_relay=role is Role.BOOTSTRAP,
            portmap=portmap,
        )
        self._announcer = Announcer(transport, self._on_told)

    def addresses(self) -> tuple[str, ...]:
        """Worth telling others, without /p2p/."""
        return self.reach.addresses()

    def status(self) -> dict[str, str | None]:
        reach = self.reach.reach
        return {
            "verdict": reach.verdict.value,
            "sentence": reach.sentence,
            "external": reach.external,
            "nat": reach.nat.value,
        }

    def relayed(self) -> dict[str, int] | None:
        """What this peer carries for others; None where it is no relay."""
        relay = self.reach.relay
        if relay is None:
            return None
        return {"reservations": relay.reservations, "circuits": relay.circuits, "bytes": relay.bytes_relayed}

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_told)
            await self.reach.run()

    async def _keep_told(self) -> None:
        """Whoever has a link knows where this device can be dialled now: a Hello said it once, maybe too early."""
        while True:
            await trio.sleep(TELL_INTERVAL_S)
            addresses = self.addresses()[:ADDRESSES_MAX]
            async with trio.open_nursery() as nursery:
                for session in list(self._driver.sessions.values()):
                    if session.told_addresses != addresses:
                        nursery.start_soon(self._tell, session, addresses)

    async def _tell(self, session: Session, addresses: tuple[str, ...]) -> None:
        if await self._announcer.tell(session.link.peer, session.link.address, addresses):
            session.told_addresses = addresses

    def _linked(self) -> list[Relay]:
        return [(session.link.peer, session.link.address) for session in self._driver.sessions.values()]

    def _observers(self) -> list[Observer]:
        return whom_to_ask(self._bootstrap(), self._linked())

    def _told(self, peer: PeerId) -> tuple[str, ...]:
        entry = self._membership.view.get(peer)
        return entry.addresses if entry is not None else ()

    def _on_told(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        if self._membership.link_of(peer) is not None:
            self._driver.tell_nowait(PeerFound(peer, addresses, FoundBy.INBOUND))
            self.reach.told_anew(peer)

    def _on_change(self, reach: Reach) -> None:
        if reach.verdict is not Verdict.UNKNOWN:
            self._on_report(Report("reachability", {**self.status()}))
