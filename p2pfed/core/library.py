"""Which own versions are kept to be served: the current ones, the one in a swap, those being read by observers.

A version is encoded once and served to all. The device's own encoding is published with every round and
mix; others exist only where a link or an observer asked for one, and until the next round.
"""

from p2pfed.core.events import Effect, LinkId, Publish, Retire
from p2pfed.core.messages import Version
from p2pfed.ports import Encoding

PINS_MAX = 4
"""Observers served from an older version at once; a fifth is given the newest and may have to start again."""
PIN_S = 60.0
"""How long a version stays after the last part was asked of it."""


class Library:
    """Own versions by digest, and the current one in each encoding."""

    def __init__(self) -> None:
        self._current: dict[Encoding, Version] = {}
        self._kept: dict[bytes, Version] = {}
        self._pinned_until: dict[bytes, float] = {}
        self._asked: dict[Encoding, dict[LinkId, None]] = {}

    @property
    def pins(self) -> int:
        """How many versions are held for observers."""
        return len(self._pinned_until)

    def current(self, encoding: Encoding) -> Version | None:
        """None before the first is published, and where nobody asked for this encoding since the last round."""
        return self._current.get(encoding)

    def renew(self, version: Version, in_swap: bytes | None, now: float) -> list[Effect]:
        """The adapter has changed: `version` is current, other encodings are not any more."""
        self._current.clear()
        return self.add(version, in_swap, now)

    def add(self, version: Version, in_swap: bytes | None, now: float) -> list[Effect]:
        """The same adapter in one more encoding."""
        self._current[version.encoding] = version
        self._kept[version.digest] = version
        self._pinned_until = {digest: until for digest, until in self._pinned_until.items() if until > now}
        wanted = {*(current.digest for current in self._current.values()), in_swap, *self._pinned_until}
        retired = [digest for digest in self._kept if digest not in wanted]
        for digest in retired:
            del self._kept[digest]
        return [Retire(digest) for digest in retired]

    def ask(self, encoding: Encoding, link: LinkId | None = None) -> list[Effect]:
        """Have the current adapter in another encoding too, once; `link`: an observer who waits for it."""
        known = encoding in self._asked
        waiting = self._asked.setdefault(encoding, {})
        if link is not None:
            waiting[link] = None
        return [] if known else [Publish(encoding)]

    def waiting(self, encoding: Encoding) -> tuple[LinkId, ...]:
        """Who waited for the version in this encoding that has just come. Asked again, it is encoded again."""
        return tuple(self._asked.pop(encoding, ()))

    def serves(self, digest: bytes, parts: tuple[int, ...]) -> Version | None:
        """The version, where it is kept and has all these parts."""
        version = self._kept.get(digest)
        if version is None or not all(index < len(version.parts) for index in parts):
            return None
        return version

    def pin(self, digest: bytes, now: float) -> None:
        self._pinned_until = {pinned: until for pinned, until in self._pinned_until.items() if until > now}
        if digest in self._kept and (digest in self._pinned_until or len(self._pinned_until) < PINS_MAX):
            self._pinned_until[digest] = now + PIN_S
