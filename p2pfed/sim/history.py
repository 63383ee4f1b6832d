"""The digest of a history: equal for equal options and seeds, different as soon as one event differs.

Events are gathered in two arrays and hashed by the thousand: hashing each would cost as much as the event.
"""

import hashlib
from array import array
from collections.abc import Mapping
from types import MappingProxyType
from typing import get_args

from p2pfed.core.events import Event, MessageReceived
from p2pfed.core.messages import Message

BATCH = 16_384
EFFECTS_BITS = 8
EFFECTS_MASK = (1 << EFFECTS_BITS) - 1
KIND_BITS = 8
KINDS: Mapping[type, int] = MappingProxyType(
    {kind: number for number, kind in enumerate((*get_args(Event), *get_args(Message)))}
)
"""A received message counts as its own kind."""


class History:
    """Takes events in their order. Frames go in whole, where there are any."""

    def __init__(self) -> None:
        self._flushed = 0
        self._kinds = dict(KINDS)
        self._digest = hashlib.sha256()
        self._times = array("d")
        self._codes = array("q")

    @property
    def events(self) -> int:
        return self._flushed + len(self._times)

    def add(self, now: float, node: int, event: Event, effects: int) -> None:
        kind: type = type(event.message) if type(event) is MessageReceived else type(event)
        self._codes.append((node << KIND_BITS | self._kinds[kind]) << EFFECTS_BITS | effects & EFFECTS_MASK)
        times = self._times
        times.append(now)
        if len(times) == BATCH:
            self._flush()

    def add_frame(self, frame: bytes) -> None:
        self._digest.update(frame)

    def digest(self) -> str:
        self._flush()
        return self._digest.hexdigest()

    def _flush(self) -> None:
        self._digest.update(self._times)
        self._digest.update(self._codes)
        self._flushed += len(self._times)
        self._times, self._codes = array("d"), array("q")
