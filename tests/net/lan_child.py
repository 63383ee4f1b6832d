"""One node with a toy learner, in a process of its own: prints a JSON line for what happens, ends with its stdin."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import trio

from p2pfed.config import NodeConfig
from p2pfed.config_file import load_network
from p2pfed.node import run_node
from p2pfed.ports import PeerId
from p2pfed.runtime import Runtime
from tests.fakes import VectorLearner


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, "at": time.time(), **fields}, default=str), flush=True)


def log(kind: str, fields: Mapping[str, object]) -> None:
    say("log", kind=kind, fields=dict(fields))


async def main(network: Path, config: NodeConfig) -> None:
    runtimes: list[Runtime] = []

    def on_runtime(runtime: Runtime) -> None:
        runtimes.append(runtime)
        on_mdns = runtime._on_mdns

        def tell(peer: PeerId, addresses: tuple[str, ...], instance: int) -> None:
            say("found", peer=peer, addresses=addresses)
            on_mdns(peer, addresses, instance)

        runtime._on_mdns = tell  # type: ignore[method-assign]

    def on_ready() -> None:
        say("ready", peer=runtimes[0].transport.peer, addresses=list(runtimes[0].transport.addresses()))

    async def stop_with_stdin() -> None:
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        runtimes[0].stop("asked to stop")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_with_stdin)
        await run_node(load_network(network), config, log, VectorLearner(1.0), 1, on_runtime, on_ready)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    off_s = float(sys.argv[3])
    now = time.time
    time.time = lambda: now() + off_s
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(sys.argv[2]).items()}
    trio.run(main, Path(sys.argv[1]), replace(NodeConfig(), steps_max=1, **given))
