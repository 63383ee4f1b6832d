"""What the networks of one process share besides the transport: DHT, identify, the hello, the event log."""

import random
from dataclasses import dataclass

from p2pfed.journal import Journal
from p2pfed.net.dht.service import Dht
from p2pfed.net.hello_desk import HelloDesk
from p2pfed.net.identify import serve_identify
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.store import Home

JOURNAL_NAME = "events.jsonl"


@dataclass(frozen=True, slots=True)
class Shared:
    """What networks of one process have in common besides the transport."""

    dht: Dht
    desk: HelloDesk
    journal: Journal


def share(transport: Libp2pTransport, home: Home, rng: random.Random, serves: bool) -> Shared:
    """Before the transport runs. `serves`: others may register in this peer's part of the DHT from the start."""
    serve_identify(transport, transport.addresses, transport.protocols)
    dht = Dht(transport, rng)
    if serves:
        dht.serve()
    return Shared(dht, HelloDesk(transport), Journal(home.path / JOURNAL_NAME))
