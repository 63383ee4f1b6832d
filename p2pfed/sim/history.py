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
KIND_BITS = 8
KINDS: Mapping[type, int] = MappingProxyType(
    {kind: number for number, kind in enumerate((*get_args(Event), *get_args(Message)))}
)
"""A received message counts as its own kind."""


class History:
    """Takes events in their order. Frames go in whole, where there are any."""

    def __init__(self) -> None:
        self.events = 0
        self._kinds = dict(KINDS)
        self._digest = hashlib.sha256()
        self._times = array("d")
        self._codes = array("q")

    def add(self, now: float, node: int, event: Event, effects: int) -> None:
        kind = self._kinds[type(event.message) if type(event) is MessageReceived else type(event)]
        self.events += 1
        self._times.append(now)
        self._codes.append((node << KIND_BITS | kind) << EFFECTS_BITS | min(effects, (1 << EFFECTS_BITS) - 1))
        if len(self._times) >= BATCH:
            self._flush()

    def add_frame(self, frame: bytes) -> None:
        self._digest.update(frame)

    def digest(self) -> str:
        self._flush()
        return self._digest.hexdigest()

    def _flush(self) -> None:
        self._digest.update(self._times)
        self._digest.update(self._codes)
        self._times, self._codes = array("d"), array("q")
