"""One peer without disk, control socket or discovery: what a bench process runs."""

import random
import time
from collections.abc import Callable

import trio

from p2pfed.config import NetworkConfig
from p2pfed.core.events import Event, FoundBy, PeerFound, Report, Started
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, Role
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.mixer import AdapterMixer
from p2pfed.net.address import parse_bootstrap
from p2pfed.net.driver import Driver
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.ports import Encoding, Learner
from tests.bench.children import say


class BenchPeer:
    """A node that knows at most one other; prints its multiaddr once it listens."""

    def __init__(
        self,
        network: NetworkConfig,
        learner: Learner,
        *,
        steps_max: int = 0,
        swap_interval_s: float = 3600.0,
        on_report: Callable[[Report], None] = lambda _: None,
        listen: str = "/ip4/127.0.0.1/tcp/0",
    ) -> None:
        self.transport = Libp2pTransport(new_identity(), (listen,))
        own = random.Random(self.transport.peer)
        encoding = Encoding(network.gossip.encoding)
        self.hello = Hello(
            version=PROTOCOL_VERSION,
            network_id=network.network_id,
            network=network.fields(),
            fingerprint=(),
            role=Role.NODE,
            encoding=encoding,
            instance=own.getrandbits(53),
            name="",
            addresses=(),
            time_s=0.0,
        )
        settings = PeerSettings(
            steps_between_swaps=network.gossip.steps_between_swaps,
            steps_max=steps_max,
            swap_interval_s=swap_interval_s,
            membership=MembershipSettings(1, 4),
        )
        self.state = PeerState(self.hello, self.transport.peer, settings, own)
        self.driver = Driver(
            self.transport,
            network.network_id,
            on_report=on_report,
            on_remember=lambda _: None,
            wall_clock=time.time,
        )
        self.driver.attach(AdapterMixer(learner, network.gossip), encoding, None, 3600.0)

    async def run(self, target: str | None, beside: Callable[[], "object"]) -> None:
        """Until `beside`, an async function, returns."""
        first: list[Event] = [Started()]
        if target is not None:
            peer, address = parse_bootstrap(target)
            first.insert(0, PeerFound(peer, (address,), FoundBy.BOOTSTRAP))
        async with self.transport.running(), trio.open_nursery() as nursery:
            say(f"{self.transport.addresses()[0]}/p2p/{self.transport.peer}")
            nursery.start_soon(self.driver.run, self.state, self.hello, first)
            await beside()  # type: ignore[misc]
            nursery.cancel_scope.cancel()
