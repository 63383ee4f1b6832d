"""A bootstrap peer: found first by newcomers, tells them of each other, never trains, never needs torch."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import platformdirs

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import Role
from p2pfed.core.peer import PeerSettings
from p2pfed.net.identity import load_or_create_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.runtime import Log, Runtime, default_home
from p2pfed.store import open_home

LINKS_MAX = 256
"""Newcomers held at once; each stays until it has neighbours enough or leaves."""


def bootstrap_home(network: NetworkConfig, config: NodeConfig) -> Path:
    if config.home:
        return Path(config.home).expanduser()
    return default_home(platformdirs.user_state_path("p2pfed"), network, config.name or "bootstrap")


async def run_bootstrap(
    network: NetworkConfig,
    config: NodeConfig,
    log: Log,
    on_runtime: Callable[[Runtime], None] = lambda _: None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run until stopped. Raises P2pfedError."""
    with open_home(bootstrap_home(network, config)) as home:
        identity = load_or_create_identity(home.path / "identity.key")
        config = dataclasses.replace(config, home=str(home.path))
        settings = PeerSettings(membership=MembershipSettings(neighbours_target=0, links_max=LINKS_MAX))
        transport = Libp2pTransport(identity, config.listen, interfaces=config.interfaces)
        runtime = Runtime(Role.BOOTSTRAP, network, config, settings, home, transport, None, log)
        on_runtime(runtime)
        await runtime.run(on_ready=on_ready)
