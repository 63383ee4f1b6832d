"""Peers told to others, asked of others, and remembered for the next start."""

import random

from p2pfed.core.events import Effect, LinkId, Remember, Send
from p2pfed.core.messages import PEERS_TOLD_MAX, PeerRecord, PeersAsk, PeersTold
from p2pfed.core.view import View
from p2pfed.ports import PeerId

ASK_FIRST_S = 2.0
"""After its first question a node that wants neighbours asks again so soon: others are just joining as well."""
ASK_INTERVAL_S = 30.0
"""Longest between two questions: each takes twice as long as the one before."""
SHUFFLE_PEERS = 4
"""Told and asked with every swap: a thousandth of the bytes of the smallest adapter worth training."""
REMEMBER_INTERVAL_S = 60.0
"""Between two writes of known peers: flash wears."""
REMEMBERED_AT_ONCE_MAX = 4
"""Writes that a start may cost besides: a bootstrap peer and three nodes are a way back."""


class Introductions:
    """Only peers this node was itself linked to are told; what others tell is hearsay until a handshake."""

    def __init__(self, view: View, rng: random.Random) -> None:
        self._view = view
        self._rng = rng
        self._asked_at = 0.0
        self._ask_after_s = ASK_FIRST_S
        self._remembered_at = 0.0
        self._remembered: tuple[PeerRecord, ...] = ()

    @property
    def next_ask_at(self) -> float:
        return self._asked_at + self._ask_after_s

    def hurry(self) -> None:
        """A neighbour was lost: ask soon again."""
        self._ask_after_s = ASK_FIRST_S

    def ask(self, links: list[LinkId], now: float) -> list[Effect]:
        """Neighbours are wanting: ask one of the links, where it is time to."""
        if not links or now < self.next_ask_at:
            return []
        self._asked_at = now
        self._ask_after_s = min(ASK_INTERVAL_S, 2.0 * self._ask_after_s)
        return [Send(self._rng.choice(links), PeersAsk(PEERS_TOLD_MAX))]

    def answer(self, link: LinkId, asker: PeerId, count: int, now: float) -> list[Effect]:
        return [Send(link, PeersTold(self._view.tellable(asker, min(count, PEERS_TOLD_MAX), now)))]

    def shuffle(self, link: LinkId, partner: PeerId, now: float) -> list[Effect]:
        """Along with a swap: tell some peers, ask for as many (Cyclon, Voulgaris et al. 2005)."""
        told = self._view.tellable(partner, SHUFFLE_PEERS, now)
        telling: list[Effect] = [Send(link, PeersTold(told))] if told else []
        return [*telling, Send(link, PeersAsk(SHUFFLE_PEERS))]

    def first_remembered(self, now: float) -> list[Effect]:
        """The first few at once: a kill in the first minute must not cost a node its neighbours."""
        return self.remember(now) if len(self._remembered) < REMEMBERED_AT_ONCE_MAX else []

    def remember_in_time(self, now: float) -> list[Effect]:
        return self.remember(now) if now - self._remembered_at >= REMEMBER_INTERVAL_S else []

    def remember(self, now: float | None = None) -> list[Effect]:
        """What changed; never nobody in place of somebody. `now` None: at the end."""
        worth = self._view.worth_remembering()
        if not worth or worth == self._remembered:
            return []
        self._remembered = worth
        self._remembered_at = now if now is not None else self._remembered_at
        return [Remember(worth)]
