"""How one network's peers are found beyond the LAN: its seeds and the DHT, handed to its machine as `PeerFound`.

A node looks for others and registers itself; a bootstrap peer only answers, and knows the other servers.
"""

import random
from collections.abc import Callable, Sequence

import trio

from p2pfed.core.events import Event, FoundBy, PeerFound
from p2pfed.core.messages import PeerRecord, Role
from p2pfed.core.view import View
from p2pfed.net import seeds as net_seeds
from p2pfed.net.dht.rounds import seek
from p2pfed.net.dht.service import Dht
from p2pfed.net.seeds import Seeds, SeedState
from p2pfed.notices import Notices
from p2pfed.ports import PeerId

SEEDS_NOTICE = "seeds"


class PeerSearch:
    """Of one network. `dht` is the transport's, shared by its networks; None: only seeds count."""

    def __init__(
        self,
        role: Role,
        own: PeerId,
        network_id: str,
        seeds: Seeds,
        dht: Dht | None,
        notices: Notices,
        rng: random.Random,
    ) -> None:
        self._role = role
        self._own = own
        self._network_id = network_id
        self._seeds = seeds
        self._dht = dht
        self._notices = notices
        self._rng = rng
        self._name_seeds()

    def first_events(self) -> list[Event]:
        """Seeds that need no resolving."""
        return [PeerFound(peer, (address,), FoundBy.BOOTSTRAP) for peer, address in self._seeds.known()]

    async def run(
        self,
        view: View,
        addresses: Callable[[], Sequence[str]],
        wanting: Callable[[], bool],
        tell: Callable[[Event], object],
        log: Callable[[str], None],
    ) -> None:
        """Until cancelled. `log` is told of each new sentence about the seeds."""

        def states(peer: PeerId) -> SeedState:
            return self._served(peer) if self._role is Role.BOOTSTRAP else _linked(view, peer)

        def resolved(peer: PeerId, address: str) -> None:
            self._name_seeds()
            tell(PeerFound(peer, (address,), FoundBy.BOOTSTRAP))

        def found(record: PeerRecord) -> None:
            tell(PeerFound(record.peer, record.addresses, FoundBy.DHT))

        def say(sentence: str | None) -> None:
            if sentence is None:
                self._notices.clear(SEEDS_NOTICE)
            elif self._notices.add(sentence, SEEDS_NOTICE):
                log(sentence)

        async with trio.open_nursery() as nursery:
            if self._seeds.entries:
                nursery.start_soon(net_seeds.keep, self._seeds, self._own, states, resolved, say)
            if self._dht is not None and self._role is Role.NODE:
                nursery.start_soon(seek, self._dht, self._network_id, addresses, wanting, found, self._rng)

    def _name_seeds(self) -> None:
        if self._dht is not None:
            for peer, address in self._seeds.known():
                self._dht.table.name(peer, (address,))

    def _served(self, peer: PeerId) -> SeedState:
        """A bootstrap peer meets other ones in the DHT alone."""
        server = self._dht.table.get(peer) if self._dht is not None else None
        if server is None:
            return SeedState()
        if server.failures:
            return SeedState(failure="it does not answer in the DHT")
        return SeedState(reached=server.answered_at is not None)


def _linked(view: View, peer: PeerId) -> SeedState:
    entry = view.get(peer)
    if entry is None:
        return SeedState()
    if entry.link is not None:
        return SeedState(reached=True)
    if entry.refusal is not None:
        return SeedState(failure=f"it serves another network: {entry.refusal}")
    return SeedState(failure=entry.last_failure if entry.failures else None)
