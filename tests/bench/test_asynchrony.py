"""The asynchrony bench measures what it says: sums, stability, equal time, and the same history for the same seed."""

import random
from dataclasses import replace

import numpy as np

from tests.bench.asynchrony import RULES, Cell, run_cell, step_times
from tests.bench.asynchrony_learners import Quadratics
from tests.bench.asynchrony_network import Network, Rule

NODES = 6
STEPS = 1200


def run(rule: Rule, delay_s: float = 12.0) -> Network:
    network = Network(Quadratics(NODES, 5).learners, step_times(NODES, 5), rule, delay_s, random.Random(5))
    network.run([STEPS], lambda _: None)
    return network


def left_over(network: Network) -> float:
    """What all mixes together moved, once both sides of each swap have mixed."""
    for index, node in enumerate(network.nodes):
        for swap in node.inbox:
            network._mix(index, swap)
        node.inbox.clear()
    return float(np.linalg.norm(sum(node.pulled for node in network.nodes)))


def test_sent_differences_keep_the_sum_and_others_do_not() -> None:
    for rule in (
        Rule("serial"),
        Rule("overlap", flights=2, spends_first=True, weight=1 / 3),
        Rule("waits", waits=True),
    ):
        assert left_over(run(rule)) < 1e-9, rule.name
        assert left_over(run(rule, 0.0)) < 1e-9, rule.name
    assert left_over(run(Rule("current", current=True))) > 1.0
    assert left_over(run(Rule("clipped", clip="round"))) > 1e-3


def test_a_swap_costs_time_where_nodes_wait_and_none_where_they_do_not() -> None:
    serial, waits = run(Rule("serial")), run(Rule("waits", waits=True))
    assert waits.now > 1.5 * serial.now
    assert run(Rule("waits", waits=True), 0.0).now == run(Rule("serial"), 0.0).now


def test_no_node_has_more_swaps_under_way_than_its_rule_allows() -> None:
    for flights in (1, 3):
        network = Network(
            Quadratics(NODES, 5).learners,
            step_times(NODES, 5),
            Rule("", flights=flights, spends_first=True, weight=0.2),
            12.0,
            random.Random(5),
        )
        most: list[int] = []
        network.run(
            range(1, STEPS),
            lambda at, most=most: most.append(max(len(node.flying) for node in at.nodes)),
        )
        assert max(most) == flights


def test_the_same_cell_gives_the_same_outcome() -> None:
    cell = Cell(replace(RULES[0], int4=False), 1.0, 0, False)
    assert run_cell(cell) == run_cell(cell)
