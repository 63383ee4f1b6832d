"""Run as a program: saves checkpoints as fast as it can until it is killed. Payload n is n, repeated."""

import sys
from pathlib import Path

from p2pfed.store import Home, open_home

PAYLOAD_BYTES = 512 * 1024


def payload_of(steps: int) -> bytes:
    return steps.to_bytes(8, "big") * (PAYLOAD_BYTES // 8)


def save_for_ever(home: Home, steps: int) -> None:
    while True:
        steps += 1
        home.save_checkpoint(steps, payload_of(steps))
        print(steps, flush=True)


if __name__ == "__main__":
    with open_home(Path(sys.argv[1])) as home:
        last = home.load_checkpoint()
        save_for_ever(home, last.steps if last else 0)
