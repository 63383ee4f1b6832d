"""What happens when, in virtual time: a priority queue for hundreds of thousands of appointments.

Appointments of one SLOT_S lie in one list, unsorted; only the slot whose time has come is a heap. So most of them are
appended once and sorted among few, where one big heap would move each through memory many times over. The order is
that of one heap: by time, then by when it was made.
"""

import heapq
from collections.abc import Callable

SLOT_S = 0.125
"""Of ten thousand nodes: about a thousand appointments."""

Appointment = tuple[float, int, Callable[..., None], tuple[object, ...]]


class Agenda:
    """`now` is the time of the appointment under way."""

    def __init__(self) -> None:
        self.now = 0.0
        self._made = 0
        self._slot = 0
        self._due: list[Appointment] = []
        """Of the current slot, a heap."""
        self._later: dict[int, list[Appointment]] = {}
        self._slots: list[int] = []
        """Keys of `_later`, a heap."""

    def at(self, when: float, action: Callable[..., None], *args: object) -> None:
        """Times gone by count as now."""
        self._made += 1
        slot = int(when / SLOT_S)
        if slot <= self._slot:
            heapq.heappush(self._due, (when, self._made, action, args))
            return
        waiting = self._later.get(slot)
        if waiting is None:
            self._later[slot] = [(when, self._made, action, args)]
            heapq.heappush(self._slots, slot)
        else:
            waiting.append((when, self._made, action, args))

    def run_until(self, end: float) -> None:
        pop = heapq.heappop
        while True:
            due = self._due
            while due and due[0][0] <= end:
                self.now, _, action, args = pop(due)
                action(*args)
            if due or not self._slots or self._slots[0] > int(end / SLOT_S):
                break
            self._slot = pop(self._slots)
            self._due = self._later.pop(self._slot)
            heapq.heapify(self._due)
        self.now = end
