"""When a link is pinged and when it counts as silent. Pure functions of an entry's times.

Anything heard proves a link. Where nothing was heard, the side that opened it pings after a while, and the other side
PING_LATER_S afterwards, so that mostly one ping and one pong serve both ends. A young link is pinged early, one that
has stood for long less often, and none is believed for more than SILENCE_MAX_S.
"""

from p2pfed.core.view import PeerEntry

SILENCE_MAX_S = 35.0
"""A link silent for so long is closed. Longer than one 256 KiB part at 64 kbit/s takes."""
PING_IDLE_MIN_S = 10.0
"""Silence after which a young link is pinged: a third of what is allowed."""
PING_IDLE_MAX_S = 26.0
"""The same for a link that has stood for long: leaves 9 s for an answer, and time for a ping by the other side."""
PING_IDLE_SHARE = 0.1
"""Of the time a link has stood: one of 260 s has proven itself."""
PING_LATER_S = 4.0
"""By how much the side that was dialled waits longer; also the least time between two pings of one side."""
PING_EARLY_SHARE = 0.2
"""A ping may go out so much of its time early, along with others: one wake-up instead of several."""


def ping_after_s(entry: PeerEntry) -> float:
    """The silence after which this side pings."""
    idle_s = (entry.heard_at - (entry.linked_at or 0.0)) * PING_IDLE_SHARE
    if idle_s > PING_IDLE_MAX_S:
        idle_s = PING_IDLE_MAX_S
    elif idle_s < PING_IDLE_MIN_S:
        idle_s = PING_IDLE_MIN_S
    return idle_s if entry.outbound else idle_s + PING_LATER_S


def check_at(entry: PeerEntry) -> float:
    """When to look at it again, unless something is heard: to ping, or (pinged already) to give it up."""
    if entry.pinged_at > entry.heard_at:
        return entry.heard_at + SILENCE_MAX_S
    return entry.heard_at + ping_after_s(entry)


def ping_due(entry: PeerEntry, now: float) -> bool:
    """Due, or nearly so while this node is awake anyhow."""
    silent_s = now - entry.heard_at
    if silent_s < PING_IDLE_MIN_S * (1.0 - PING_EARLY_SHARE):
        return False
    return silent_s >= ping_after_s(entry) * (1.0 - PING_EARLY_SHARE) and now >= entry.pinged_at + PING_LATER_S
