"""Which own versions are kept to be served: the current one, the one in a swap, those being read by observers."""

from p2pfed.core.events import Effect, Retire
from p2pfed.core.messages import Version

PINS_MAX = 4
"""Observers served from an older version at once; a fifth is given the newest and may have to start again."""
PIN_S = 60.0
"""How long a version stays after the last part was asked of it."""


class Library:
    """Own versions by digest. `current` is None before the first is published."""

    def __init__(self) -> None:
        self.current: Version | None = None
        self._kept: dict[bytes, Version] = {}
        self._pinned_until: dict[bytes, float] = {}

    @property
    def pins(self) -> int:
        """How many versions are held for observers."""
        return len(self._pinned_until)

    def publish(self, version: Version, in_swap: bytes | None, now: float) -> list[Effect]:
        self.current = version
        self._kept[version.digest] = version
        self._pinned_until = {digest: until for digest, until in self._pinned_until.items() if until > now}
        wanted = {version.digest, in_swap, *self._pinned_until}
        retired = [digest for digest in self._kept if digest not in wanted]
        for digest in retired:
            del self._kept[digest]
        return [Retire(digest) for digest in retired]

    def serves(self, digest: bytes, parts: tuple[int, ...]) -> bool:
        version = self._kept.get(digest)
        return version is not None and all(index < len(version.parts) for index in parts)

    def pin(self, digest: bytes, now: float) -> None:
        self._pinned_until = {pinned: until for pinned, until in self._pinned_until.items() if until > now}
        if digest in self._kept and (digest in self._pinned_until or len(self._pinned_until) < PINS_MAX):
            self._pinned_until[digest] = now + PIN_S
