"""Runs the benches named, or all: `python -m tests.bench [encoding] [idle] [swap] [training]`. One JSON line each."""

import sys

from tests.bench import encoding, idle, swap, training
from tests.bench.children import say

BENCHES = {"encoding": encoding.measure, "idle": idle.measure, "swap": swap.measure, "training": training.measure}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHES:
        say({"bench": name, **BENCHES[name]()})
