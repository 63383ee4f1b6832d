"""When a link is pinged and when it counts as silent. Pure functions of an entry's times.

Anything heard proves a link. Where nothing was heard, the side that opened it pings after `idle_s`, the other one
PING_AGAIN_S later, so that one ping and one pong serve both ends; then both again every PING_AGAIN_S. A young link
is pinged early, one that has stood for long less often, and none is believed for more than SILENCE_MAX_S.
"""

from p2pfed.core.view import PeerEntry

SILENCE_MAX_S = 35.0
"""A link silent for so long is closed. Longer than one 256 KiB part at 64 kbit/s takes."""
PING_IDLE_MIN_S = 10.0
"""Silence after which a young link is pinged: a third of what is allowed."""
PING_IDLE_MAX_S = 26.0
"""The same for a link that has stood for long: leaves 9 s for an answer, and time for one more ping by each side."""
PING_IDLE_SHARE = 0.1
"""Of the time a link has stood: one of 260 s has proven itself."""
PING_AGAIN_S = 4.0
PING_EARLY_S = 3.0
"""Pings that would be due so soon go out with one that is due: one wake-up instead of several."""


def silent_at(entry: PeerEntry) -> float:
    """The link is given up after this time, unless something is heard."""
    return entry.heard_at + SILENCE_MAX_S


def ping_at(entry: PeerEntry) -> float:
    """When the next ping is due, unless something is heard before."""
    heard_at = entry.heard_at
    idle_s = (heard_at - (entry.linked_at or 0.0)) * PING_IDLE_SHARE
    if idle_s > PING_IDLE_MAX_S:
        idle_s = PING_IDLE_MAX_S
    elif idle_s < PING_IDLE_MIN_S:
        idle_s = PING_IDLE_MIN_S
    due = heard_at + (idle_s if entry.outbound else idle_s + PING_AGAIN_S)
    again = entry.pinged_at + PING_AGAIN_S
    return again if entry.pinged_at > heard_at and again > due else due


def ping_due(entry: PeerEntry, now: float) -> bool:
    """Due, or nearly so while others are."""
    return now >= ping_at(entry) - PING_EARLY_S and now >= entry.pinged_at + PING_AGAIN_S
