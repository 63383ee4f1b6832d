"""What is asked of peers that answered: whether this device can be dialled back, and what the DHT knows."""

import ipaddress
import random
from collections.abc import Sequence

import trio

from p2pfed.doctor.finding import Finding, ok, warn
from p2pfed.doctor.reach import Context
from p2pfed.errors import P2pfedError
from p2pfed.net.address import parse_address
from p2pfed.net.dht.key import network_key
from p2pfed.net.dht.service import Dht
from p2pfed.net.dialback import Answer, ask_dialback
from p2pfed.net.verdict import find

ASKED_MAX = 5
"""As many as a node asks (net.reach)."""


class DialBack:
    """From the address the peers see, to the port this device would listen on."""

    name = "dial-back"

    async def run(self, context: Context) -> list[Finding]:
        if context.own_status is not None:
            return []  # the running node knows, and holds the port
        answers: list[Answer] = []
        failures: list[str] = []
        claims = list(context.transport.addresses())

        async def ask(peer: int) -> None:
            record = context.reached[peer]
            try:
                answers.append(await ask_dialback(context.transport, record.peer, record.addresses[0], claims))
            except P2pfedError as error:
                failures.append(str(error))

        async with trio.open_nursery() as nursery:
            for number in range(min(ASKED_MAX, len(context.reached))):
                nursery.start_soon(ask, number)
        if not answers:
            why = failures[0] if failures else "no peer answered that could be asked"
            return [warn(self.name, f"not known: {why}", "name a bootstrap peer with --bootstrap, and try again")]
        return [_verdict(answers, claims)]


def _verdict(answers: Sequence[Answer], claims: Sequence[str]) -> Finding:
    own = frozenset(parse_address(claim).host for claim in claims)
    seen = find(answers, own)
    asked = "a peer" if seen.answers == 1 else f"most of {seen.answers} peers"
    if seen.reached:
        return ok("dial-back", f"{asked} dialled this device back at {' and '.join(seen.reached)}")
    host = seen.external.host if seen.external is not None else "another address"
    if seen.external is not None and ipaddress.ip_address(host).is_loopback:
        return ok("dial-back", "not known: only peers on this device answered")
    if host in own:
        reason = next((reason for answer in answers for _, reason in answer.failed), "it was not dialled")
        return warn(
            "dial-back",
            f"this device is seen at {host}, but {asked} cannot dial it: {reason}",
            "open the node's TCP port in this device's firewall",
        )
    return warn(
        "dial-back",
        f"behind a NAT: this device is seen at {host}; a node here is relayed, or punches a hole",
        "to be direct, forward the node's TCP port to this device, or allow UPnP on the router",
    )


class DhtLook:
    """A search for this network's peers, begun at the seeds."""

    name = "DHT"

    async def run(self, context: Context) -> list[Finding]:
        dht = Dht(context.transport, random.Random(context.hello.instance))
        for record in context.reached:
            dht.table.name(record.peer, record.addresses)
        found = await dht.find(network_key(context.network.network_id))
        if any(server.answered_at is not None for server in (dht.table.get(r.peer) for r in context.reached) if server):
            peers = f"{len(found)} peer{'' if len(found) == 1 else 's'}"
            return [ok(self.name, f"it answers, and knows {peers} of this network")]
        return [
            warn(
                self.name,
                "none of the peers that answered serves it",
                "give a bootstrap peer with --bootstrap: those do",
            )
        ]
