"""Where the doctor's questions meet other modules: seeds, the running node's own verdict, and what a probe is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.core.messages import Hello, PeerRecord
from p2pfed.doctor.asking import Target
from p2pfed.doctor.finding import Finding, ok, warn
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.runtime import bootstrap_peers

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


async def seeds_of(network: NetworkConfig, config: NodeConfig) -> tuple[list[Target], list[Finding]]:
    """Whom both files name, and a finding for each entry that leads to nobody. Raises ConfigError."""
    seeds = bootstrap_peers(network, config)
    with trio.move_on_after(PROBE_S):
        await seeds.refresh(trio.current_time(), failing=True)
    findings = [
        warn("seeds", f"{entry.text}: {entry.problem}", "check the name or file, and this device's DNS")
        for entry in seeds.entries
        if entry.problem is not None
    ]
    return [Target(peer, (address,), "seed") for peer, address in seeds.known()], findings


def verdict_of(status: Mapping[str, object]) -> Finding | None:
    """How others reach the node that runs here, as it says itself; None where it says nothing of it."""
    reach = status.get("reachability")
    if not isinstance(reach, Mapping) or not isinstance(sentence := reach.get("sentence"), str):
        return None
    if reach.get("verdict") == "unreachable":
        return warn("reach", sentence, "or give this node a bootstrap peer that relays, with --bootstrap MULTIADDR")
    return ok("reach", sentence)
