"""When a link is pinged, when its peer is suspected and when it is given up. Functions of one entry.

Anything heard proves a link. Where nothing was heard, the side that opened it pings after a while, and the other side
PING_LATER_S afterwards, so that mostly one ping and one pong serve both ends. A young link is pinged early, one that
has stood for long less often. How long an answer may take is learned from each peer's own answers; one that is late
makes its peer suspected, not lost: it is asked again, each time with more patience, MISSES_MAX times in all (after
SWIM, Das et al. 2002, and the exponential back-off of RFC 6298).
"""

from enum import Enum

from p2pfed.core.deadline import Pace
from p2pfed.core.events import Effect, Report, Send
from p2pfed.core.messages import Ping
from p2pfed.core.view import PeerEntry

MISSES_MAX = 3
"""Pings without an answer, and nothing else heard, after which a link is given up."""
ANSWER_FIRST_S = 4.0
"""Patience with a peer whose answers were never timed: ten round trips over a bad satellite link."""
ANSWER_MIN_S = 2.0
"""Least patience: TCP repeats a lost packet within 1 s, and a small device may be busy for another. With the two
doublings a peer of the LAN that stopped answering is given up after 14 s."""
ANSWER_MAX_S = 12.0
"""Most, for each ping: what still comes after that comes from a link of no use."""
SILENCE_MAX_S = 45.0
"""While parts travel, no ping is late before the link was silent for so long: one 256 KiB part at 64 kbit/s takes
33 s, and an answer waits behind it."""
PING_IDLE_MIN_S = 10.0
"""Silence after which a young link is pinged."""
PING_IDLE_MAX_S = 33.0
"""The same for a link that has stood for long."""
PING_IDLE_SHARE = 0.1
"""Of the time a link has stood: one of 330 s has proven itself."""
PING_LATER_S = 4.0
"""By how much the side that was dialled waits longer: its ping is the second try, should the first be lost."""
PING_EARLY_SHARE = 0.5
"""The side that opened a link may ping so much of the time early, along with others: soon all its links are pinged
together, and one wake-up serves them all."""


class Look(Enum):
    """What a look at a link says."""

    WAIT = "wait"
    PING = "ping"
    MISS = "miss"
    """The last ping's time is over: suspect the peer, ping again."""
    LOST = "lost"


def ping_after_s(entry: PeerEntry) -> float:
    """The silence after which this side pings."""
    idle_s = (entry.heard_at - (entry.linked_at or 0.0)) * PING_IDLE_SHARE
    if idle_s > PING_IDLE_MAX_S:
        idle_s = PING_IDLE_MAX_S
    elif idle_s < PING_IDLE_MIN_S:
        idle_s = PING_IDLE_MIN_S
    return idle_s if entry.outbound else idle_s + PING_LATER_S


def answer_limit_s(entry: PeerEntry) -> float:
    """How long its next answer may take: twice as long after each miss."""
    usual_s = (entry.pace or Pace()).limit_s(ANSWER_FIRST_S, ANSWER_MIN_S, ANSWER_MAX_S)
    return min(ANSWER_MAX_S, usual_s * 2.0**entry.misses)


def look_at(entry: PeerEntry, now: float) -> tuple[Look, float]:
    """What to do with a link now, and when to look again where that is to wait.

    A ping goes out early where this node is awake anyhow.
    """
    heard_at = entry.heard_at
    if entry.pinged_at <= heard_at:
        after_s = ping_after_s(entry)
        due_s = after_s * (1.0 - PING_EARLY_SHARE) if entry.outbound else after_s
        return (Look.PING, now) if now - heard_at >= due_s else (Look.WAIT, heard_at + after_s)
    late_at = entry.pinged_at + answer_limit_s(entry)
    if entry.bulk_at + SILENCE_MAX_S > now:
        late_at = max(late_at, heard_at + SILENCE_MAX_S)
    if now < late_at:
        return Look.WAIT, late_at
    return (Look.MISS, now) if entry.misses + 1 < MISSES_MAX else (Look.LOST, now)


def ping(entry: PeerEntry, nonce: int | None, now: float) -> list[Effect]:
    """Ask whether its peer is there. `nonce` None: again, with the same one, so that a late answer still tells how
    long it took."""
    assert entry.link is not None and entry.pace is not None
    effects: list[Effect] = []
    if nonce is None:
        entry.misses += 1
        if entry.misses == 1:
            silent_s = round(now - entry.heard_at, 1)
            effects.append(Report("neighbour-suspected", {"peer": entry.peer, "silent_s": silent_s}))
    else:
        entry.nonce, entry.asked_at = nonce, now
    entry.pinged_at = now
    return [*effects, Send(entry.link, Ping(entry.nonce or 0))]


def answered(entry: PeerEntry, nonce: int, now: float) -> None:
    """A pong came: learn how long this peer takes."""
    if nonce == entry.nonce and entry.pace is not None:
        entry.nonce, entry.rtt_s = None, now - entry.asked_at
        entry.pace.observe(entry.rtt_s)
