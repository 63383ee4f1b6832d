"""What a simulated peer is told to be: the core's settings and its hello, from its options."""

import random

from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, Role
from p2pfed.core.peer import PeerSettings
from p2pfed.ports import PeerId
from p2pfed.sim.options import NodeOptions


def settings_of(options: NodeOptions) -> PeerSettings:
    """The core's settings of a simulated peer; a bootstrap peer only answers, as in reality."""
    target = options.neighbours_target if options.role is Role.NODE else 0
    return PeerSettings(
        options.steps_between_swaps,
        options.steps_max,
        options.swap_interval_s,
        options.weight,
        tuple(PeerId(f"sim-{name}") for name in options.members),
        "simulated",
        options.swap_day_bytes,
        options.link_day_bytes,
        MembershipSettings(target, options.links_max),
    )


def hello_of(options: NodeOptions, network: tuple[tuple[str, str], ...], address: str, instance: int) -> Hello:
    """What a simulated peer says of itself; its wall clock stands still, skews are not simulated."""
    fields = tuple(sorted({**dict(network), **dict(options.fields)}.items()))
    network_id = f"{hash_of(fields):016x}"
    return Hello(
        PROTOCOL_VERSION,
        network_id,
        fields,
        options.fingerprint,
        options.role,
        options.encoding,
        instance,
        options.name,
        (address,),
        0.0,
    )


def hash_of(fields: tuple[tuple[str, str], ...]) -> int:
    """64 bits that depend on the fields alone, unlike `hash`."""
    return random.Random(repr(fields)).getrandbits(64)
