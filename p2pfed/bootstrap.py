"""A bootstrap peer: found first by newcomers of one or many networks, tells them of each other, never trains.

It needs no torch, and keeps nothing that matters but its identity: all it knows of others it is told again within
minutes, by newcomers over their links and by everybody else through the DHT.
"""

import dataclasses
import random
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import Role
from p2pfed.core.peer import PeerSettings
from p2pfed.errors import ConfigError
from p2pfed.net.hardening import Limits
from p2pfed.net.identity import load_or_create_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.runtime import Log, Runtime, default_home
from p2pfed.shared import share
from p2pfed.store import open_home

NETWORKS_MAX = 64
"""A machine each, of some 100 KB; more is a mistake."""
LINKS_MAX = 256
"""Newcomers of one network held at once; each stays until it has neighbours enough or leaves."""
LIMITS = Limits(
    connections_max=LINKS_MAX + 128,  # the links of one busy network, and as many visitors as a node takes
    connections_per_peer_max=4,
    handshakes_max=128,
    streams_max=4 * LINKS_MAX,  # a link each, and for half of them a search, a ping and a check at once
    streams_per_peer_max=16,
)


def bootstrap_home(network: NetworkConfig, config: NodeConfig) -> Path:
    if config.home:
        return Path(config.home).expanduser()
    return default_home(platformdirs.user_state_path("p2pfed"), network, config.name or "bootstrap")


async def run_bootstrap(
    networks: Sequence[NetworkConfig],
    config: NodeConfig,
    log: Log,
    on_runtime: Callable[[Runtime], None] = lambda _: None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve these networks with one identity on one port, until stopped. Raises P2pfedError."""
    _check(networks)
    with open_home(bootstrap_home(networks[0], config)) as home:
        identity = load_or_create_identity(home.path / "identity.key")
        config = dataclasses.replace(config, home=str(home.path))
        settings = PeerSettings(membership=MembershipSettings(neighbours_target=0, links_max=LINKS_MAX))
        transport = Libp2pTransport(identity, config.listen, interfaces=config.interfaces, limits=LIMITS)
        shared = share(transport, home, random.Random(secrets.randbits(64)), serves=True)

        def runtime_of(network: NetworkConfig, beside: Sequence[Runtime] = ()) -> Runtime:
            named = log if len(networks) == 1 else _naming(log, network.name)
            return Runtime(Role.BOOTSTRAP, network, config, settings, home, transport, None, named, shared, beside)

        runtime = runtime_of(networks[0], [runtime_of(network) for network in networks[1:]])
        on_runtime(runtime)
        await runtime.run(on_ready=on_ready)


def _check(networks: Sequence[NetworkConfig]) -> None:
    if not 1 <= len(networks) <= NETWORKS_MAX:
        raise ConfigError(f"a bootstrap peer serves 1 to {NETWORKS_MAX} networks, not {len(networks)}")
    by_id: dict[str, str] = {}
    for network in networks:
        if network.network_id in by_id:
            raise ConfigError(f"{by_id[network.network_id]} and {network.name} are the same network: give it once")
        by_id[network.network_id] = network.name


def _naming(log: Log, name: str) -> Log:
    """Every event says which network it is of."""
    return lambda kind, fields: log(kind, {"network": name, **fields})
