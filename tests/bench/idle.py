"""What an idle bootstrap peer takes, and how soon the command line answers.

RSS beside that of a bare `import libp2p`, CPU as a share of one core over a minute's idling with two
linked nodes' worth of nothing to do; `p2pfed --help` beside `python -c pass`.
`python -m tests.bench.idle` prints one JSON line; aims: RSS under 90 MiB, CPU under 1 %, help under 0.3 s.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from p2pfed.presets import PRESETS
from tests.bench.children import say
from tests.processes.fleet import Fleet

SETTLE_S = 5.0
IDLE_S = 20.0
HELP_RUNS = 7


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), PRESETS["smollm2-135m"]) as fleet:
        fleet.bootstrap(flags=("--no-mdns",))  # as the kit in bootstrap/ runs it
        process = psutil.Process(fleet.processes["bootstrap"].pid)
        time.sleep(SETTLE_S)
        before = sum(process.cpu_times()[:2])
        time.sleep(IDLE_S)
        cpu_s = sum(process.cpu_times()[:2]) - before
        rss = process.memory_info().rss
    bare = subprocess.run(
        [sys.executable, "-c", "import psutil, libp2p; print(psutil.Process().memory_info().rss)"],
        capture_output=True,
        text=True,
        check=True,
    )
    help_s, python_s = (_median_s(words) for words in (["-m", "p2pfed", "--help"], ["-c", "pass"]))
    return {
        "bootstrap_rss_mib": rss / 2**20,
        "import_libp2p_rss_mib": int(bare.stdout) / 2**20,
        "ratio_rss_to_import_libp2p": rss / int(bare.stdout),
        "bootstrap_cpu_percent": 100.0 * cpu_s / IDLE_S,
        "help_s": help_s,
        "ratio_help_to_python": help_s / python_s,
    }


def _median_s(words: list[str]) -> float:
    seconds = []
    for _ in range(HELP_RUNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


if __name__ == "__main__":
    say(measure())
