"""Newcomers beyond what a bootstrap peer holds find a network, and what a node knows becomes a random sample."""

import statistics

from p2pfed.core.messages import Role
from p2pfed.sim.scenario import parse
from p2pfed.sim.simulation import Simulation

NODES = 120
LINKS_MAX = 16
SCENARIO = {
    "seed": 5,
    "duration_s": 900.0,
    "sample_interval_s": 300.0,
    "network": {"codec": False},
    "nodes": [
        {"prefix": "b", "role": "bootstrap", "links_max": LINKS_MAX},
        {"count": NODES, "stagger_s": 1.0, "trains": False, "step_s": 1.5, "neighbours_target": 6},
    ],
    "expect": {"balanced": True},
}


def test_the_view_is_a_random_sample_though_nodes_joined_one_after_another() -> None:
    simulation = Simulation(parse(SCENARIO, "joined in a row"))
    report = simulation.run()
    assert report.problems == ()
    runs = simulation.network.runs
    assert len(runs["b1"].state.membership.links) <= LINKS_MAX, "it holds few, and introduced all"
    apart, known_by = [], dict.fromkeys(range(1, NODES + 1), 0)
    for number in known_by:
        membership = runs[f"n{number}"].state.membership
        assert len(membership.neighbours()) >= 4
        for entry in membership.view.entries():
            if entry.role is not Role.BOOTSTRAP and entry.peer.startswith("sim-n"):
                known_by[int(entry.peer.removeprefix("sim-n"))] += 1
        apart += [abs(number - int(entry.peer.removeprefix("sim-n"))) for entry in membership.neighbours()]
    # Two of a row drawn at random are a third of its length apart.
    assert statistics.mean(apart) > 0.8 * NODES / 3.0, "links do not stay with those who joined at the same time"
    assert statistics.pstdev(known_by.values()) < 0.15 * statistics.mean(known_by.values())
