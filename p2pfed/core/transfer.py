"""Fetching one version from one peer: which parts are missing, asked for, arrived. Pull only.

The asker sets the pace: at most WINDOW parts in flight, one more asked for with each that arrives,
which also tells the other side that it goes on. Every part is checked before it is kept, and a broken
link loses at most the window: `resume` asks again for what is missing.
"""

import itertools

from p2pfed.core.events import Effect, KeepPart, LinkId, Send
from p2pfed.core.messages import Part, PartAsk, Version
from p2pfed.core.version import part_problem
from p2pfed.errors import RemoteError

WINDOW = 8
"""Parts in flight: 2 MiB, more than bandwidth times delay of 100 Mbit/s at 160 ms."""


class Fetch:
    """Progress of one version. Methods give effects; RemoteError means the peer lied."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self._missing = dict.fromkeys(range(len(version.parts)))
        self._asked: dict[int, None] = {}

    @property
    def complete(self) -> bool:
        return not self._missing

    @property
    def parts_held(self) -> int:
        return len(self.version.parts) - len(self._missing)

    def resume(self, link: LinkId) -> list[Effect]:
        """Start, or start again over a new link: what was in flight is asked for anew."""
        self._asked.clear()
        return self._ask(link)

    def on_part(self, link: LinkId, part: Part) -> list[Effect]:
        if part.index not in self._missing:
            return []  # asked for twice, over two links: the first one was kept
        if problem := part_problem(self.version, part.index, part.data):
            raise RemoteError(problem)
        del self._missing[part.index]
        self._asked.pop(part.index, None)
        return [KeepPart(self.version, part.index, part.data), *self._ask(link)]

    def _ask(self, link: LinkId) -> list[Effect]:
        room = WINDOW - len(self._asked)
        indexes = list(itertools.islice((index for index in self._missing if index not in self._asked), room))
        if not indexes:
            return []
        self._asked.update(dict.fromkeys(indexes))
        return [Send(link, PartAsk(self.version.digest, tuple(indexes)))]
