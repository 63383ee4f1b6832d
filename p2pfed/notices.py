"""Sentences for the operator: what `status` shows as needing a person, newest last."""

from dataclasses import dataclass, field

NOTICES_MAX = 8
"""Kept at once; the oldest goes."""


@dataclass(slots=True)
class Notices:
    """Each sentence once. One with a key replaces the former of that key, and goes when it is over."""

    _sentences: dict[str, str] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        return list(self._sentences.values())

    def add(self, sentence: str, key: str = "") -> bool:
        """True where it was not there before."""
        key = key or sentence
        if self._sentences.get(key) == sentence:
            return False
        self._sentences.pop(key, None)
        self._sentences[key] = sentence
        while len(self._sentences) > NOTICES_MAX:
            del self._sentences[next(iter(self._sentences))]
        return True

    def clear(self, key: str) -> None:
        self._sentences.pop(key, None)
