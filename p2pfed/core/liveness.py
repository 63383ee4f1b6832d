"""When a link is pinged and when it counts as silent. Pure functions of an entry's times.

Anything heard proves a link. Where nothing was heard, the side that opened it pings after a while, and the other side
PING_LATER_S afterwards, so that mostly one ping and one pong serve both ends. A young link is pinged early, one that
has stood for long less often, and none is believed for more than SILENCE_MAX_S.
"""

from p2pfed.core.view import PeerEntry

SILENCE_MAX_S = 45.0
"""A link silent for so long is closed. One 256 KiB part at 64 kbit/s takes 33 s, and what was asked before it is
answered behind it."""
PING_IDLE_MIN_S = 10.0
"""Silence after which a young link is pinged: a quarter of what is allowed."""
PING_IDLE_MAX_S = 33.0
"""The same for a link that has stood for long: leaves 12 s for an answer, and time for a ping by the other side."""
PING_IDLE_SHARE = 0.1
"""Of the time a link has stood: one of 330 s has proven itself."""
PING_LATER_S = 4.0
"""By how much the side that was dialled waits longer: its ping is the second try, should the first be lost."""
PING_EARLY_SHARE = 0.5
"""The side that opened a link may ping so much of the time early, along with others: soon all its links are pinged
together, and one wake-up serves them all."""


def ping_after_s(entry: PeerEntry) -> float:
    """The silence after which this side pings."""
    idle_s = (entry.heard_at - (entry.linked_at or 0.0)) * PING_IDLE_SHARE
    if idle_s > PING_IDLE_MAX_S:
        idle_s = PING_IDLE_MAX_S
    elif idle_s < PING_IDLE_MIN_S:
        idle_s = PING_IDLE_MIN_S
    return idle_s if entry.outbound else idle_s + PING_LATER_S


def check_at(entry: PeerEntry, now: float) -> float:
    """When to look at it again, unless something is heard: in the past, where it is to be pinged now.

    A ping goes out early where this node is awake anyhow, and is not repeated by the same side: what is left then is
    to give the link up in time.
    """
    heard_at = entry.heard_at
    if entry.pinged_at > heard_at:
        return heard_at + SILENCE_MAX_S
    after_s = ping_after_s(entry)
    due_s = after_s * (1.0 - PING_EARLY_SHARE) if entry.outbound else after_s
    return heard_at if now - heard_at >= due_s else heard_at + after_s
