"""A peer in a process of its own, for a test that stops the process: dials PEER at ADDRESS, tells what came of it.

`python -m tests.net.stopped_peer PEER ADDRESS`: one JSON line after the first swap, and it goes on until it is killed.
"""

import json
import sys

import trio

from p2pfed.core.events import FoundBy, PeerFound, Started
from p2pfed.ports import PeerId
from tests.net.bad_line import watched
from tests.net.test_driver import until


async def main(peer: str, address: str) -> None:
    own = watched(2.0)
    found = PeerFound(PeerId(peer), (address,), FoundBy.BOOTSTRAP)
    async with own.transport.running(), trio.open_nursery() as nursery:
        nursery.start_soon(own.driver.run, own.state, own.hello, [found, Started()])
        await until(lambda: own.state.statistics.finished > 0 and not own.state.exchange.busy)
        print(json.dumps({"counts": own.counts, "came": list(own.came.values())}), flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:3])
