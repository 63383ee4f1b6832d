"""A node: the composition root that joins a learner to the network.

`run_node` is what `p2pfed node start` and `api.Node` call. The learner is the user's own or, by
default, LoRA on the network's base model.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
import trio

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import Role
from p2pfed.core.peer import PeerSettings
from p2pfed.errors import ConfigError
from p2pfed.net.identity import load_or_create_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.ports import Learner
from p2pfed.runtime import Log, Runtime, default_home
from p2pfed.store import Home

LINKS_PER_NEIGHBOUR = 4
"""Inbound links held beyond the neighbours sought, so that newcomers are not turned away."""


def node_home(network: NetworkConfig, config: NodeConfig) -> Path:
    """Where a node keeps identity, checkpoints and peers."""
    if config.home:
        return Path(config.home).expanduser()
    return default_home(platformdirs.user_state_path("p2pfed"), network, config.name or "node")


def set_threads(threads: int, environ: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Before torch is imported: spinning OpenMP threads of several nodes on few cores destroy each other."""
    environ.setdefault("OMP_NUM_THREADS", str(threads))
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def build_learner(network: NetworkConfig, config: NodeConfig, log: Log) -> Learner:
    """LoRA on the network's base model and this device's data. Imports torch."""
    if not config.data:
        raise ConfigError("a node needs data: give --data PATH, or data = in node.toml")
    set_threads(config.threads)
    from p2pfed.train.learner import LoraLearner

    log("loading-model", {"base": network.model.base})
    return LoraLearner.from_config(network, config)


async def run_node(
    network: NetworkConfig,
    config: NodeConfig,
    log: Log,
    learner: Learner | None = None,
    on_runtime: Callable[[Runtime], None] = lambda _: None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run until stopped. Raises P2pfedError; leaves identity, checkpoint and peers in the home folder."""
    with Home.open(node_home(network, config)) as home:
        identity = load_or_create_identity(home.path / "identity.key")
        config = dataclasses.replace(config, home=str(home.path))
        if learner is None:
            learner = await trio.to_thread.run_sync(build_learner, network, config, log)
        restored = home.load_checkpoint()
        if restored is not None:
            steps, payload = restored
            await trio.to_thread.run_sync(learner.load, payload)
            log("restored", {"steps": steps})
        settings = PeerSettings(
            steps_between_swaps=network.gossip.steps_between_swaps,
            steps_max=config.steps_max,
            swap_interval_s=network.gossip.swap_interval_s,
            membership=MembershipSettings(config.neighbours_max, config.neighbours_max * LINKS_PER_NEIGHBOUR),
        )
        transport = Libp2pTransport(identity, config.listen)
        runtime = Runtime(Role.NODE, network, config, settings, home, transport, learner, log)
        on_runtime(runtime)
        await runtime.run(on_ready=on_ready)
