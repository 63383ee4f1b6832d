"""How long two hosts on one LAN take to know each other: namespaces on a bridge, a node with a toy learner each.

From the start of the second node's process (Python's start and imports with it), and from when it listens, until both
have found each other by mDNS. `python -m tests.bench.lan [runs]` prints one JSON line; the aim: within 3 s, always.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.children import say
from tests.net.lan import Lan, found

RUNS = 20
AIM_S = 3.0


def measure(runs: int = RUNS) -> dict[str, object]:
    results = {}
    for kind, addresses in (("ipv4", ("10.77.0.{}/24",)), ("ipv6", ("fd00:77::{}/64",))):
        times = [_meet(f"{kind}-{number}", addresses) for number in range(runs)]
        whole = [each[0] for each in times]
        results[kind] = {
            "runs": runs,
            "within_aim": sum(each <= AIM_S for each in whole),
            "median_s": round(statistics.median(whole), 3),
            "max_s": round(max(whole), 3),
            "median_after_listening_s": round(statistics.median(each[1] for each in times), 3),
            "max_after_listening_s": round(max(each[1] for each in times), 3),
        }
    return results


def _meet(label: str, addresses: tuple[str, ...]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder, Lan(label, 2) as lan:
        for host in range(2):
            lan.up(host, *(address.format(host + 1) for address in addresses))
        with lan.child(0, Path(folder) / "one") as one:
            first = one.ready()
            with lan.child(1, Path(folder) / "two") as two:
                second = two.ready()
                both = max(one.wait(found(second["peer"]))["at"], two.wait(found(first["peer"]))["at"])
                return both - two.started_at, both - second["at"]


if __name__ == "__main__":
    say({"bench": "lan", **measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)})
