"""Further ways to learn how this device stands in a network: each a probe that gives findings.

`probes` is the one place where they are named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.core.messages import Hello, PeerRecord
from p2pfed.doctor.finding import Finding
from p2pfed.net.libp2p import Libp2pTransport

PROBE_S = 6.0
"""For each probe; one that needs longer is cut off and said to have given nothing."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a probe may use. The transport runs with an identity of its own, made for this occasion."""

    network: NetworkConfig
    config: NodeConfig
    transport: Libp2pTransport
    """Listens where the node would, if that does not run; else on loopback only."""
    hello: Hello
    reached: Sequence[PeerRecord]
    """Peers of this network that answered just now, with the address that did."""
    own_status: dict[str, object] | None
    """`node status` of the node that runs on this device, None where none does."""


class Probe(Protocol):
    """`name` is the finding's subject where it takes too long."""

    name: str

    async def run(self, context: Context) -> list[Finding]:
        """Within PROBE_S. Raises nothing but P2pfedError."""


def probes() -> tuple[Probe, ...]:
    """The DHT and dial-back belong here."""
    return ()
