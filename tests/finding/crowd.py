"""Whole nodes and bootstrap peers in one process, without disk-bound models and without the LAN."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import trio

from p2pfed.bootstrap import run_bootstrap
from p2pfed.config import GossipConfig, ModelConfig, NetworkConfig, NodeConfig
from p2pfed.core.messages import Role
from p2pfed.node import run_node
from p2pfed.runtime import Runtime
from tests.fakes import VectorLearner

NETWORK = NetworkConfig("crowd", ModelConfig("vector"), gossip=GossipConfig(encoding="float32"))
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def variant(batch_rows: int) -> NetworkConfig:
    """Another network: one field differs."""
    return dataclasses.replace(
        NETWORK, name=f"crowd-{batch_rows}", training=dataclasses.replace(NETWORK.training, batch_rows=batch_rows)
    )


class Crowd:
    """Starts peers, each with a scope that ends it at once, as a kill would."""

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self._nursery = nursery
        self._folder = folder
        self._scopes: dict[str, trio.CancelScope] = {}
        self._over: dict[str, trio.Event] = {}
        self.runtimes: dict[str, Runtime] = {}
        self.logs: dict[str, list[tuple[str, Mapping[str, object]]]] = {}

    async def bootstrap(
        self,
        name: str,
        networks: Sequence[NetworkConfig] = (NETWORK,),
        seeds: Sequence[str] = (),
        listen: Sequence[str] = LOOPBACK,
    ) -> str:
        """Its multiaddr."""

        async def main(
            config: NodeConfig,
            log: Callable[[str, Mapping[str, object]], None],
            on_runtime: Callable[[Runtime], None],
            on_ready: Callable[[], None],
        ) -> None:
            await run_bootstrap(networks, config, log, on_runtime, on_ready)

        return await self._start(name, seeds, listen, main)

    async def node(self, name: str, seeds: Sequence[str] = (), network: NetworkConfig = NETWORK) -> str:
        """Its multiaddr."""

        async def main(
            config: NodeConfig,
            log: Callable[[str, Mapping[str, object]], None],
            on_runtime: Callable[[Runtime], None],
            on_ready: Callable[[], None],
        ) -> None:
            await run_node(network, config, log, VectorLearner(1.0), 0, on_runtime, on_ready)

        return await self._start(name, seeds, LOOPBACK, main)

    def home(self, name: str) -> Path:
        return self._folder / name

    def kill(self, name: str) -> None:
        self._scopes.pop(name).cancel()
        del self.runtimes[name]

    async def stop(self, name: str) -> None:
        """Cleanly."""
        self.runtimes.pop(name).stop("enough")
        await self._over.pop(name).wait()

    def neighbours(self, name: str) -> int:
        """Live ones that train."""
        return len(self.runtimes[name].state.membership.neighbours())

    def status(self, name: str) -> dict[str, object]:
        return self.runtimes[name].status()

    def notices(self, name: str) -> str:
        return " ".join(str(each) for each in self.runtimes[name].notices.sentences)

    def nodes(self) -> list[str]:
        return [name for name, runtime in self.runtimes.items() if runtime.role is Role.NODE]

    async def _start(
        self, name: str, seeds: Sequence[str], listen: Sequence[str], main: Callable[..., Awaitable[None]]
    ) -> str:
        ready, over = trio.Event(), trio.Event()
        self._over[name] = over
        log = self.logs.setdefault(name, [])
        config = NodeConfig(
            name=name,
            home=str(self.home(name)),
            listen=tuple(listen),
            bootstrap=tuple(seeds),
            mdns=False,
            steps_max=1,  # then it gossips and costs nothing
        )

        def on_runtime(runtime: Runtime) -> None:
            self.runtimes[name] = runtime

        async def run() -> None:
            with trio.CancelScope() as self._scopes[name]:
                await main(config, lambda kind, fields: log.append((kind, fields)), on_runtime, ready.set)
            over.set()

        self._nursery.start_soon(run)
        await ready.wait()
        return self.runtimes[name].own_addresses()[0]


async def until(condition: Callable[[], bool], seconds: float, what: Callable[[], object] = lambda: "") -> float:
    """How long it took. Fails with `what` where it took longer."""
    begun = trio.current_time()
    with trio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110  many machines run in this process, no one event tells
            await trio.sleep(0.05)
        return trio.current_time() - begun
    raise AssertionError(f"not within {seconds:g} s: {what()}")


def play(folder: Path, story: Callable[[Crowd], Awaitable[None]], seconds: float = 60.0) -> None:
    async def main() -> None:
        with trio.fail_after(seconds):
            async with trio.open_nursery() as nursery:
                await story(Crowd(nursery, folder))
                nursery.cancel_scope.cancel()

    trio.run(main)
