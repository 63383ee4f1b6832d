"""Take a snapshot: join as an observer, read every reachable node's version, keep the running mean.

Memory is one mean and one version, however many nodes there are. Needs numpy, no torch.
"""

import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from p2pfed.config import NetworkConfig
from p2pfed.core.collection import CollectionSettings, Collector, Contribution
from p2pfed.core.events import FoundBy, PeerFound, Report, Started
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, Role, Version
from p2pfed.errors import TransportError
from p2pfed.net.driver import Driver
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.seeds import resolve_all
from p2pfed.ports import Encoding, PeerId


@dataclass(frozen=True, slots=True)
class Collection:
    """The consensus adapter in wire form (float32), who gave what, who could not be read."""

    payload: bytes
    contributions: tuple[Contribution, ...]
    failures: Mapping[PeerId, str]
    consensus_distance: float
    """Root of the weighted mean squared distance of the nodes to the mean (L2 over all adapter values)."""


async def collect(
    network: NetworkConfig,
    bootstrap: tuple[str, ...],
    *,
    by_examples: bool = False,
    settle_s: float = 5.0,
    deadline_s: float = 300.0,
) -> Collection:
    """Read all nodes reachable through `bootstrap` (multiaddrs with /p2p/, nodes or bootstrap peers).

    Weights are equal, or each node's examples. Raises TransportError when no node could be read.
    """
    from p2pfed.snapshot.mean import MeanMixer  # numpy: whoever takes no snapshot does without

    identity = new_identity()
    transport = Libp2pTransport(identity, ("/ip4/0.0.0.0/tcp/0",))
    rng = random.Random(secrets.randbits(64))
    settings = CollectionSettings(settle_s=settle_s, deadline_s=deadline_s)
    hello = Hello(
        version=PROTOCOL_VERSION,
        network_id=network.network_id,
        network=network.fields(),
        fingerprint=(),
        role=Role.OBSERVER,
        encoding=settings.encoding,
        instance=rng.getrandbits(53),
        name="observer",
        addresses=(),
        time_s=0.0,
    )

    def weigh(version: Version) -> float:
        return float(max(1, version.examples)) if by_examples else 1.0

    collector = Collector(hello, transport.peer, settings, rng, weigh)
    mean = MeanMixer()
    driver = Driver(transport, network.network_id, on_report=_ignore, on_remember=lambda _: None, wall_clock=time.time)
    driver.attach(mean, settings.encoding, None, 0.0)
    peers = await resolve_all(bootstrap)
    found = [PeerFound(peer, (address,), FoundBy.BOOTSTRAP) for peer, address in peers]
    async with transport.running():
        await driver.run(collector, hello, [*found, Started()])
    if not collector.contributions:
        reasons = "; ".join(f"{peer}: {reason}" for peer, reason in collector.failures.items())
        raise TransportError(f"no node could be read ({reasons or 'none was found'})")
    return Collection(
        await trio.to_thread.run_sync(mean.export, Encoding.FLOAT32),
        tuple(collector.contributions),
        dict(collector.failures),
        mean.consensus_distance(),
    )


def _ignore(_: Report) -> None:
    """A collection keeps no event log: its result says all."""
