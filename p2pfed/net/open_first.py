"""A link by whichever of a peer's addresses answers first, the likelier ones a little ahead.

An address that leads nowhere says so after seconds, and most peers have one: the next is not kept waiting for it.
"""

from collections.abc import Sequence

import trio

from p2pfed.errors import ConfigError, ProtocolMissing, RemoteError, TransportError
from p2pfed.ports import Link, PeerId, Transport

DIAL_S = 15.0
"""One address, from dial to hello."""
AHEAD_S = 2.0
"""What an address has before the next is dialled as well: a slow link answers by then."""


async def open_first(transport: Transport, peer: PeerId, addresses: Sequence[str], protocol: str) -> Link:
    """Raises ProtocolMissing with the address that answered, or TransportError with the reason of every failure."""
    failures: list[str] = []
    links: list[Link] = []
    missing: list[ProtocolMissing] = []

    async def attempt(address: str, over: trio.Event) -> None:
        try:
            with trio.fail_after(DIAL_S):
                links.append(await transport.open(peer, address, protocol))
        except ProtocolMissing as error:
            error.address = address
            missing.append(error)
        except (TransportError, RemoteError, ConfigError) as error:  # ConfigError: a stranger's address that is none
            failures.append(f"{address}: {error}")
        except trio.TooSlowError:
            failures.append(f"{address}: no answer within {DIAL_S:.0f} s")
        over.set()
        if links or missing:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for address in addresses:
            over = trio.Event()
            nursery.start_soon(attempt, address, over)
            with trio.move_on_after(AHEAD_S):
                await over.wait()
    for late in links[1:]:
        await late.aclose()
    if links:
        return links[0]
    if missing:
        raise missing[0]
    raise TransportError("; ".join(failures))
