"""The outgoing wire of a simulated peer, and the ends of its links.

Each link is a connection of its own, and connections share the wire packet by packet: a ping is not held up by the
part that another link carries, only by one on its own. Parts leave one after the other, links in turn, behind
everything else of their link. A message on an idle wire costs one event of the simulation, a part that waits two.
"""

from collections import deque
from typing import TYPE_CHECKING, Protocol

from p2pfed.core.events import LinkId, SendPart
from p2pfed.core.messages import Message
from p2pfed.sim.agenda import Agenda

if TYPE_CHECKING:
    from p2pfed.sim.process import Run

SEND_QUEUE_MAX = 64
"""Messages waiting for one peer, as in a real session: one more and the link is cut."""
BURST_S = 0.01
"""What leaves within this time makes nobody wait."""


class Hangup:
    """Last in the queue of an end that was closed: the other end learns it after what was said before."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


Outgoing = Message | SendPart | Hangup


class Waiting:
    """Messages in their order, and parts behind all of them."""

    __slots__ = ("messages", "parts")

    def __init__(self) -> None:
        self.messages: deque[Message | Hangup] = deque()
        self.parts: deque[SendPart] = deque()

    def __len__(self) -> int:
        return len(self.messages) + len(self.parts)


class End:
    """One end of a link. `told` from LinkUp to LinkDown; a `dead` link carries nothing and says nothing."""

    __slots__ = (
        "closing",
        "dead",
        "key",
        "last_arrival_at",
        "leaves_at",
        "link",
        "other",
        "run",
        "told",
        "trip_s",
        "waiting",
    )

    def __init__(self, run: "Run", link: LinkId) -> None:
        self.run = run
        self.link = link
        self.key = 0
        self.other: End = self
        self.trip_s = 0.0
        """One way to the other end, without jitter."""
        self.leaves_at = 0.0
        """When the last byte of its last message has left."""
        self.last_arrival_at = 0.0
        """At the other end: a link keeps the order of its messages."""
        self.told = False
        self.closing = False
        self.dead = False
        self.waiting: Waiting | None = None
        """What waits for its turn; None where nothing does, as mostly: a queue for each link would fill the memory."""


class UplinkWires(Protocol):
    """What an uplink needs of the network."""

    clock: Agenda

    def transmit(self, end: End, message: Message, starts_at: float) -> float:
        """When its last byte has left."""

    def hang_up(self, end: End, reason: str, leaves_at: float) -> None: ...


class Uplink:
    """One for each run."""

    __slots__ = ("_clock", "_free_at", "_run", "_waiting", "_waking", "_wires")

    def __init__(self, run: "Run", wires: UplinkWires) -> None:
        self._run = run
        self._wires = wires
        self._clock = wires.clock
        self._free_at = 0.0
        self._waiting: deque[End] = deque()
        self._waking = False

    @property
    def idle_at(self) -> float | None:
        """When the last byte has left; None while messages wait for their turn."""
        return None if self._waiting else max(self._free_at, self._clock.now)

    def put(self, end: End, item: Outgoing) -> bool:
        """False where too much waits for this peer already."""
        now = self._clock.now
        if end.waiting is None and end.leaves_at - now < BURST_S:
            if not isinstance(item, SendPart | Hangup):
                if not end.dead:  # along with what other links are sending, which takes that much longer
                    end.leaves_at = leaves_at = self._wires.transmit(end, item, now)
                    self._free_at = leaves_at if self._free_at <= now else self._free_at + leaves_at - now
                return True
            if not self._waiting and self._free_at - now < BURST_S:
                self._leave(end, item)
                return True
        if end.waiting is None:
            end.waiting = Waiting()
            self._waiting.append(end)
        elif len(end.waiting) >= SEND_QUEUE_MAX and not isinstance(item, Hangup):
            return False
        if isinstance(item, SendPart):
            end.waiting.parts.append(item)
        else:
            end.waiting.messages.append(item)
        self._wake_later()
        return True

    def drop_parts(self, end: End) -> None:
        if end.waiting is None:
            return
        end.waiting.parts.clear()
        if not end.waiting:
            end.waiting = None
            self._waiting.remove(end)

    def pump(self) -> None:
        """Time has passed: whatever may leave now."""
        self._waking = False
        while self._waiting and self._free_at - self._clock.now < BURST_S:
            end = self._waiting.popleft()
            queue = end.waiting
            assert queue is not None
            item: Outgoing = queue.messages.popleft() if queue.messages else queue.parts.popleft()
            if queue:
                self._waiting.append(end)
            else:
                end.waiting = None
            self._leave(end, item)
        if self._waiting:
            self._wake_later()

    def _leave(self, end: End, item: Outgoing) -> None:
        if end.dead:
            return
        starts_at = max(self._free_at, self._clock.now)
        if isinstance(item, Hangup):
            self._wires.hang_up(end, item.reason, starts_at)
            return
        message = self._run.load(item) if isinstance(item, SendPart) else item
        end.leaves_at = self._free_at = self._wires.transmit(end, message, starts_at)

    def _wake_later(self) -> None:
        if not self._waking:
            self._waking = True
            self._clock.at(self._free_at, self.pump)
