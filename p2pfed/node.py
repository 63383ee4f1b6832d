"""A node: the composition root that joins a learner to the network.

`run_node` is what `p2pfed node start` and `api.Node` call. The learner is the user's own or, by
default, LoRA on the network's base model; the mixer around it is the network's gossip rule.
"""

import dataclasses
import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import platformdirs
import trio

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import Role
from p2pfed.core.peer import PeerSettings
from p2pfed.errors import ConfigError, ExitCode, LearnerError, LocalError
from p2pfed.net.address import parse_address
from p2pfed.net.identity import load_or_create_identity
from p2pfed.net.interfaces import listen_plan
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.ports import Learner, Mixer, PeerId
from p2pfed.runtime import Log, Runtime, bootstrap_peers, default_home
from p2pfed.shared import share
from p2pfed.store import Home, open_home

T = TypeVar("T")

LINKS_PER_NEIGHBOUR = 4
"""Inbound links held beyond the neighbours sought, so that newcomers are not turned away."""


def node_home(network: NetworkConfig, config: NodeConfig) -> Path:
    """Where a node keeps identity, checkpoints and peers."""
    if config.home:
        return Path(config.home).expanduser()
    return default_home(platformdirs.user_state_path("p2pfed"), network, config.name or "node")


def prepare_environment(
    network: NetworkConfig, threads: int, environ: dict[str, str] | os._Environ[str] = os.environ
) -> None:
    """Before torch is imported: what its libraries read from the environment, where the user has not said otherwise.

    Spinning OpenMP threads of several nodes on few cores destroy each other. Progress bars are for downloads.
    """
    environ.setdefault("OMP_NUM_THREADS", str(threads))
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if network.model.base.startswith("package:") or Path(network.model.base).is_dir():
        environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def build_learner(network: NetworkConfig, config: NodeConfig, log: Log) -> tuple[Learner, int]:
    """LoRA on the network's base model and this device's data, and how many rows of it. Imports torch."""
    if not config.data:
        raise ConfigError("a node needs data: give --data PATH, or data = in node.toml")
    prepare_environment(network, config.threads)
    from p2pfed.train.data import read_rows

    data = read_rows(config.data)
    log("data", {"source": data.source, "rows": len(data.rows), "rejected": data.rejected_count})
    try:
        from p2pfed.train.base_model import use_threads
        from p2pfed.train.learner import open_learner
        from p2pfed.train.packaged import cache_folder
    except ModuleNotFoundError as error:
        raise LocalError(
            f"training needs the package {error.name}: pip install 'p2pfed[node]'", ExitCode.EXTRA_MISSING
        ) from error
    use_threads(config.threads)
    log("loading-model", {"base": network.model.base})
    learner, tokenised = open_learner(network, config, data, cache=cache_folder(os.environ))
    if tokenised.rejected:
        line, reason = tokenised.rejected[0]
        log("rows-left-out", {"rows": len(tokenised.rejected), "first": f"line {line}: {reason}"})
    rows = len(tokenised.examples)
    log("model-loaded", {"rows": rows, "adapter_values": sum(array.size for array in learner.start().values())})
    return learner, rows


def build_mixer(learner: Learner, network: NetworkConfig) -> Mixer:
    """The network's gossip rule around a learner."""
    from p2pfed.mixer import AdapterMixer  # numpy: a bootstrap peer, which shares the API with this, does without

    return AdapterMixer(learner, network.gossip)


async def run_node(
    network: NetworkConfig,
    config: NodeConfig,
    log: Log,
    learner: Learner | None = None,
    rows: int = 0,
    on_runtime: Callable[[Runtime], None] = lambda _: None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run until stopped. Raises P2pfedError; leaves identity, checkpoint and peers in the home folder.

    `rows`: of data behind `learner`, needed where the network weighs by examples.
    Cheap checks come before the model is loaded. Cancelling during that leaves the loading thread behind.
    """
    bootstrap_peers(network, config)
    if learner is not None and rows < 1 and network.gossip.weighting == "examples":
        raise ConfigError('gossip.weighting is "examples": say how many rows of data are behind the learner')
    listen = [parse_address(text) for text in config.listen]
    listen_plan([each for each in listen if not each.kind.startswith("dns")])  # a name is refused by the transport
    with open_home(node_home(network, config)) as home:
        identity = load_or_create_identity(home.path / "identity.key")
        config = dataclasses.replace(config, home=str(home.path))
        transport = Libp2pTransport(identity, config.listen, interfaces=config.interfaces)
        _check_member(network, transport.peer)
        try:
            if learner is None:
                learner, rows = await _in_thread(build_learner, network, config, log)
            mixer = await _in_thread(build_mixer, learner, network)
        except trio.Cancelled:
            log("stopped", {"kept": f"everything as it was before in {home.path}: the model was still loading"})
            raise
        await _restore(mixer, home, log)
        settings = settings_of(network, config, rows)
        shared = share(transport, home, random.Random(secrets.randbits(64)), serves=False)
        runtime = Runtime(Role.NODE, network, config, settings, home, transport, mixer, log, shared)
        on_runtime(runtime)
        await runtime.run(on_ready=on_ready)


def settings_of(network: NetworkConfig, config: NodeConfig, rows: int) -> PeerSettings:
    """What the machine needs to know of both files. `rows` of data count where the network weighs by them."""
    gossip = network.gossip
    # The schedule of a fixed membership names each other member in turn: there must be a link to each.
    neighbours = max(config.neighbours_max, len(gossip.members) - 1)
    return PeerSettings(
        steps_between_swaps=gossip.steps_between_swaps,
        steps_max=config.steps_max,
        swap_interval_s=gossip.swap_interval_s,
        weight=rows if gossip.weighting == "examples" else 1,
        members=tuple(PeerId(member) for member in gossip.members),
        schedule_seed=network.network_id,
        swap_day_bytes=config.swap_day_bytes,
        link_day_bytes=config.link_day_bytes,
        membership=MembershipSettings(neighbours, neighbours * LINKS_PER_NEIGHBOUR),
    )


def _check_member(network: NetworkConfig, peer: PeerId) -> None:
    if network.gossip.members and peer not in network.gossip.members:
        raise ConfigError(
            f"this node is {peer}, which is none of the {len(network.gossip.members)} of gossip.members in the "
            "network file: nobody would swap with it"
        )


async def _restore(mixer: Mixer, home: Home, log: Log) -> None:
    """Go on from the newest whole checkpoint, where there is one."""
    restored = home.load_checkpoint()
    if restored is None:
        return
    for sentence in restored.skipped:
        log("checkpoint-skipped", {"problem": sentence})
    try:
        await _in_thread(mixer.load, restored.payload)
    except LearnerError as error:
        raise LocalError(
            f"the checkpoint of step {restored.steps} in {home.path} cannot be used by this version of p2pfed and "
            f"network file: {error}; take another --home, or delete its checkpoint-* files to train anew",
            ExitCode.CHECKPOINT,
        ) from error
    log("restored", {"steps": restored.steps})


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Blocking work that a stop need not wait for."""
    return await trio.to_thread.run_sync(
        function,
        *arguments,
        abandon_on_cancel=True,  # type: ignore[call-arg]  # as in net.worker
    )
