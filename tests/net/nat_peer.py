"""One real peer with a toy learner, in a process of its own: `python -m tests.net.nat_peer FILE NODE_TOML ROLE`."""

import sys

import trio

from p2pfed.bootstrap import run_bootstrap
from p2pfed.config_file import load_network, load_node
from p2pfed.node import run_node
from tests.fakes import VectorLearner


def log(kind: str, fields: object) -> None:
    sys.stdout.write(f"{kind} {fields}\n")
    sys.stdout.flush()


def main() -> None:
    network, config = load_network(sys.argv[1]), load_node(sys.argv[2])
    if sys.argv[3] == "bootstrap":
        trio.run(run_bootstrap, network, config, log)
    else:
        trio.run(run_node, network, config, log, VectorLearner(target=0.0, rate=0.01, start=1.0), 1)


if __name__ == "__main__":
    main()
