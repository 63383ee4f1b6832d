"""The scenario without a file: many equal, realistic devices. What `p2pfed simulate` and the scale bench run.

A device makes a step in 15 s (a 7B model on a small computer) and swaps after every four: 60 swaps an hour. Each
seeks four neighbours and is sought by others, which makes about eight links; it knows three others from an earlier
run, and all start within the first minute. The wire gives 10 Mbit/s and 20 to 30 ms one way.
"""

from typing import Any

from p2pfed.sim.scenario import Scenario, parse

STEP_S = 15.0
STEPS_BETWEEN_SWAPS = 4
NEIGHBOURS_TARGET = 4
LINKS_MAX = 16
REMEMBERS = 3
START_WITHIN_S = 60.0
LEARNING_RATE = 0.02
"""A round pulls a toy by a twelfth of its way: as slow against mixing as training an adapter."""
SAMPLES = 120
"""A point every half minute of an hour."""
CODEC_NODES_MAX = 300
"""In larger networks messages travel as objects."""
CHURN_FROM_S = 300.0
CHURN_OUTAGE_S = 240.0
"""Four rounds, as in the experiments."""


def devices(
    nodes: int,
    duration_s: float,
    seed: int,
    learner: str = "toy",
    trains: bool = True,
    topology: str = "grown",
    down_share: float = 0.0,
    encoding: str = "int4",
    attackers: int = 0,
    attack: str = "sign-flip",
    clip: float = 3.0,
    samples_s: float = 0.0,
) -> Scenario:
    """The last `attackers` of the nodes attack; `samples_s` 0: SAMPLES over all the time. Raises ConfigError."""
    each: dict[str, Any] = {
        "step_s": STEP_S,
        "steps_between_swaps": STEPS_BETWEEN_SWAPS,
        "neighbours_target": NEIGHBOURS_TARGET,
        "links_max": LINKS_MAX,
        "remembers": REMEMBERS,
        "stagger_s": START_WITHIN_S / max(1, nodes),
        "learner": learner,
        "learning_rate": LEARNING_RATE,
        "clip": clip,
        "noise": 0.5 if learner == "quadratic" else 0.0,
        "trains": trains,
        "encoding": encoding,
    }
    groups = [{**each, "count": nodes - attackers}]
    if attackers:
        groups.append({**each, "count": attackers, "prefix": "attacker", "attack": attack})
    table = {
        "seed": seed,
        "duration_s": duration_s,
        "sample_interval_s": samples_s or duration_s / SAMPLES,
        "network": {"codec": nodes <= CODEC_NODES_MAX},
        "topology": {"kind": topology},
        "nodes": groups,
        "churn": {"down_share": down_share, "outage_s": CHURN_OUTAGE_S, "from_s": CHURN_FROM_S},
        "expect": {"quiet": False, "swaps_min": 0},
    }
    return parse(table, f"{nodes} devices")
