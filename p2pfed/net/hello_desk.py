"""Answers p2pfed's network-independent hello for all networks that share a transport, and knows who uses a connection.

Whoever asks is answered by the network it asks about; where that is not here, by the one that differs in the fewest
fields, so that a person is told the field that was mistaken and not all of another network's.
"""

from typing import Protocol

from p2pfed.core.messages import Hello
from p2pfed.net.session import answer_hello
from p2pfed.ports import Link, PeerId, Transport

HELLO_PROTOCOL = "/p2pfed/hello/1"


class Network(Protocol):
    """What of a `driver.Driver` is needed here."""

    async def ready(self) -> None: ...
    def own_hello(self) -> Hello: ...
    def uses(self, peer: PeerId) -> bool: ...
    async def greeted(self, peer: PeerId, theirs: Hello) -> None: ...


class HelloDesk:
    """One a transport; make it before that runs."""

    def __init__(self, transport: Transport) -> None:
        self._networks: list[Network] = []
        transport.serve(HELLO_PROTOCOL, self._answer)

    def add(self, network: Network) -> None:
        self._networks.append(network)

    def uses(self, peer: PeerId) -> bool:
        """A network has a session with that peer, so its connection must stay."""
        return any(each.uses(peer) for each in self._networks)

    async def _answer(self, link: Link) -> None:
        for each in self._networks:
            await each.ready()
        try:
            theirs = await answer_hello(link, lambda hello: self._nearest(hello).own_hello())
            await self._nearest(theirs).greeted(link.peer, theirs)
        finally:
            await link.aclose()

    def _nearest(self, theirs: Hello) -> Network:
        return min(self._networks, key=lambda each: _fields_that_differ(each.own_hello(), theirs))


def _fields_that_differ(mine: Hello, theirs: Hello) -> int:
    if mine.network_id == theirs.network_id:
        return 0
    return 1 + len(set(mine.network) ^ set(theirs.network))
