"""The processes of one run, a namespace each: start, speak to all, hear whoever speaks, kill.

A process prints JSON lines and reads words; what it times, it times by the machine's monotonic clock, which all share.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Any, Self

from tests.bench.links import Links

Said = tuple[int, dict[str, Any] | list[str] | str | None]
"""Who, and the JSON value; None at the end of that process."""


class Crew:
    """`with Crew(links, folder_for_errors) as crew:`; leaving kills everything in the namespaces."""

    def __init__(self, links: Links, errors: str) -> None:
        self._links = links
        self._errors = errors
        self._said: queue.Queue[Said] = queue.Queue()
        self._children: dict[int, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []

    def start(self, peer: int, python: str, module: str, settings: dict[str, Any]) -> None:
        with open(f"{self._errors}/{peer}.txt", "w") as errors:  # noqa: PTH123
            child = subprocess.Popen(
                [*self._links.inside(peer), python, "-m", module, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            )
        assert child.stdout is not None
        self._children[peer] = child
        reader = threading.Thread(target=self._read, args=(peer, child.stdout), daemon=True)
        reader.start()
        self._readers.append(reader)

    def tell(self, word: str, peers: Iterable[int] | None = None) -> float:
        """To all at once, or to some; when, by the clock that the processes use."""
        at = time.monotonic()
        for peer in self._children if peers is None else peers:
            child = self._children[peer]
            assert child.stdin is not None
            child.stdin.write(word + "\n")
            child.stdin.flush()
        return at

    def hear(self, until: float, what: str = "the next word") -> tuple[int, Any]:
        """The next thing said by any. Raises RuntimeError where a process ended or `until` has come."""
        try:
            peer, value = self._said.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise RuntimeError(f"no time left, waiting for {what}") from None
        if value is None:
            raise RuntimeError(f"process {peer} ended: {self._last_error(peer)}")
        return peer, value

    def hear_all(self, until: float, key: str | None = None) -> dict[int, Any]:
        """One value from each process; with `key`, everything without it is passed over."""
        heard: dict[int, Any] = {}
        while len(heard) < len(self._children):
            absent = sorted(self._children.keys() - heard.keys())
            peer, value = self.hear(until, f"{key or 'a word'} of {absent}")
            if key is None or (isinstance(value, dict) and key in value):
                heard[peer] = value
        return heard

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._links.kill()
        for child in self._children.values():
            child.kill()
            child.wait()
        for reader in self._readers:
            reader.join()

    def _read(self, peer: int, output: IO[str]) -> None:
        for text in output:
            try:
                self._said.put((peer, json.loads(text)))
            except ValueError:
                print(f"{peer}: {text.rstrip()}", file=sys.stderr)
        self._said.put((peer, None))

    def _last_error(self, peer: int) -> str:
        with open(f"{self._errors}/{peer}.txt") as errors:  # noqa: PTH123
            return " / ".join(errors.read().strip().splitlines()[-2:])
