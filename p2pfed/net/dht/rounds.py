"""When a peer uses the DHT: soon after its start, while neighbours are wanting, and otherwise hardly ever.

A node's round is one search that finds the network's peers and the nearest servers, and a registration at these.
"""

import random
from collections.abc import Callable, Sequence

import trio

from p2pfed.core.messages import PeerRecord
from p2pfed.net.dht.key import network_key
from p2pfed.net.dht.service import Dht

FIRST_AFTER_S = 1.0
"""A bootstrap peer's own introductions come first, over the connection that is then used again."""
WANTING_INTERVAL_S = 5.0
WANTING_INTERVAL_MAX_S = 300.0
"""Between two rounds of a node without neighbours enough; doubled each time."""
PROVIDE_INTERVAL_S = 30 * 60.0
"""Between two rounds otherwise: a few hundred bytes and three round trips a server."""
FOUND_MAX = 24
"""Peers handed over of one round, drawn at random: three times the neighbours a node has, and a server cannot flood."""
REFRESH_INTERVAL_S = 10 * 60.0
"""Between two looks of a server after the others."""
REFRESH_WANTING_S = 5.0
"""The same while none has ever answered; doubled each time."""
LOOK_INTERVAL_S = 5.0
"""How soon a change is noticed: a look at three numbers."""


async def seek(
    dht: Dht,
    network_id: str,
    addresses: Callable[[], Sequence[str]],
    wanting: Callable[[], bool],
    found: Callable[[PeerRecord], None],
    rng: random.Random,
) -> None:
    """A node's rounds for one network, until cancelled. `wanting`: neighbours are."""
    key = network_key(network_id)
    interval_s = WANTING_INTERVAL_S
    await trio.sleep(FIRST_AFTER_S * rng.uniform(0.5, 1.0))
    while True:
        own = tuple(addresses())
        servers = len(dht.table)
        if servers:
            told = await dht.find(key, own)
            for record in rng.sample(told, min(FOUND_MAX, len(told))):
                found(record)
        begun, spread = trio.current_time(), rng.uniform(0.75, 1.0)
        waiting = True
        while waiting:
            await trio.sleep(LOOK_INTERVAL_S)
            changed = tuple(addresses()) != own or (not servers and len(dht.table) > 0)
            wait_s = 0.0 if changed else interval_s if wanting() else PROVIDE_INTERVAL_S
            waiting = trio.current_time() - begun < spread * wait_s
        interval_s = min(2.0 * interval_s, WANTING_INTERVAL_MAX_S) if wanting() else WANTING_INTERVAL_S


async def keep_fresh(dht: Dht, rng: random.Random) -> None:
    """A server's duty, once it is one: know the other servers, and forget those that are gone."""
    await dht.serving.wait()
    wanting_s = REFRESH_WANTING_S
    await trio.sleep(FIRST_AFTER_S * rng.uniform(0.5, 1.0))
    while True:
        await dht.refresh(trio.current_time() - REFRESH_INTERVAL_S)
        dht.providers.expire(trio.current_time())
        alone = dht.table.servers() and all(each.answered_at is None for each in dht.table.servers())
        await trio.sleep((wanting_s if alone else REFRESH_INTERVAL_S) * rng.uniform(0.75, 1.0))
        wanting_s = min(2.0 * wanting_s, REFRESH_INTERVAL_S) if alone else REFRESH_WANTING_S
