"""Fetching one version from one peer: which parts are missing, asked for, arrived. Pull only.

The asker sets the pace: so many parts in flight as arrive in a few seconds, more asked for with each that arrives,
which also tells the other side that it goes on. Every part is checked before it is kept, and a broken
link loses at most the window: `resume` asks again for what is missing.
"""

import itertools

from p2pfed.core.events import Effect, KeepPart, LinkId, Send
from p2pfed.core.messages import Part, PartAsk, Version
from p2pfed.core.version import part_problem
from p2pfed.errors import RemoteError

WINDOW = 8
"""Parts in flight at most: 2 MiB, more than bandwidth times delay of 100 Mbit/s at 160 ms."""
WINDOW_FIRST = 4
"""Before the first has come: three of them, until the next ask, take 100 s at 64 kbit/s."""
WINDOW_MIN = 2
"""At least: one is on its way while the next is asked for."""
WINDOW_S = 8.0
"""Parts that take longer than this to come are not asked for yet: an ask is how the other side knows that this one
goes on, and eight at once would be four minutes of silence at 64 kbit/s."""


class Fetch:
    """Progress of one version. Methods give effects; RemoteError means the peer lied."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self._missing = dict.fromkeys(range(len(version.parts)))
        self._asked: dict[int, None] = {}
        self._begun = 0.0
        self._came = 0
        """Parts since `_begun`."""

    @property
    def complete(self) -> bool:
        return not self._missing

    def resume(self, link: LinkId, now: float) -> list[Effect]:
        """Start, or start again over a new link: what was in flight is asked for anew."""
        self._asked.clear()
        self._begun, self._came = now, 0
        return self._ask(link, now)

    def on_part(self, link: LinkId, part: Part, now: float) -> list[Effect]:
        if part.index not in self._missing:
            return []  # asked for twice, over two links: the first one was kept
        if problem := part_problem(self.version, part.index, part.data):
            raise RemoteError(problem)
        del self._missing[part.index]
        self._asked.pop(part.index, None)
        self._came += 1
        return [KeepPart(self.version, part.index, part.data), *self._ask(link, now)]

    def _ask(self, link: LinkId, now: float) -> list[Effect]:
        room = max(0, self._window(now) - len(self._asked))
        indexes = list(itertools.islice((index for index in self._missing if index not in self._asked), room))
        if not indexes:
            return []
        self._asked.update(dict.fromkeys(indexes))
        return [Send(link, PartAsk(self.version.digest, tuple(indexes)))]

    def _window(self, now: float) -> int:
        """Parts that come in WINDOW_S, as they came so far over this link."""
        took_s = now - self._begun
        if not self._came:
            return WINDOW_FIRST
        return max(WINDOW_MIN, min(WINDOW, int(self._came * WINDOW_S / took_s))) if took_s > 0.0 else WINDOW
