"""Every scenario file runs and keeps its promises; the same seed gives the same history in every process."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from p2pfed.errors import ConfigError
from p2pfed.sim.learner import ToyMixer
from p2pfed.sim.scenario import Scenario, load, parse
from p2pfed.sim.simulation import Simulation, run
from tests.sim.costs import SCENARIOS, report_of

ROOT = Path(__file__).parents[2]
DIGEST_OF = (
    "import sys; from pathlib import Path; from p2pfed.sim.scenario import load; from p2pfed.sim.simulation import run;"
    "print(run(load(Path(sys.argv[1]))).history)"
)


def scenario(name: str) -> Scenario:
    return load(Path(__file__).parent / "scenarios" / f"{name}.toml")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    report = report_of(path)
    assert report.problems == (), f"seed {report.seed}"
    assert report.swaps > 0 and report.bytes_a_node > 0


@pytest.mark.parametrize(
    ("name", "seed"), [("breaks", 101), ("breaks", 102), ("breaks", 103), ("crashes", 101), ("unreliable", 101)]
)
def test_faults_under_other_seeds(name: str, seed: int) -> None:
    assert run(scenario(name).with_seed(seed)).problems == ()


def test_equal_seeds_give_equal_histories_in_every_process() -> None:
    path = Path(__file__).parent / "scenarios" / "copied-identity.toml"
    digests = [
        subprocess.run(
            [sys.executable, "-c", DIGEST_OF, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    here = run(load(path)).history
    assert digests == [here, here]
    assert run(load(path).with_seed(99)).history != here


def test_a_cut_without_end_is_found() -> None:
    """The checks can fail: without its heal the partition scenario is in two parts."""
    cut = scenario("partition")
    unhealed = replace(cut, duration_s=150.0, faults=cut.faults[:1])
    assert any("2 parts" in problem for problem in run(unhealed).problems)


def test_a_mix_that_keeps_no_sum_is_found() -> None:
    calm = scenario("calm-idle")
    simulation = Simulation(replace(calm, duration_s=30.0))
    for node in calm.nodes[1:]:
        simulation.network.at(20.0, lambda name=node.name: spoil(simulation, name))  # type: ignore[misc]
    assert any("sum of all adapters" in problem for problem in simulation.run().problems)


def spoil(simulation: Simulation, name: str) -> None:
    mixer = simulation.network.runs[name].mixer
    assert isinstance(mixer, ToyMixer)
    mixer.values = [value + 0.5 for value in mixer.values]


def test_a_bulk_transfer_takes_its_time() -> None:
    """One swap of 40 kB over 4 kB/s uplinks: ten seconds each way, at the same time."""
    table = {
        "seed": 1,
        "duration_s": 40.0,
        "nodes": [{"count": 2, "values": 10_000, "uplink_bytes_s": 4000.0, "trains": False, "steps_max": 1}],
        "expect": {"balanced": True},
    }
    slow = parse({**table, "nodes": [{**table["nodes"][0], "knows": ["n1"]}]}, "bulk")  # type: ignore[index]
    simulation = Simulation(slow)
    report = simulation.run()
    assert report.problems == ()
    mixed_at = [sample.at_s for sample in report.spread if sample.swaps > 0]
    assert mixed_at and mixed_at[0] >= 10.0
    assert all(node.bytes_sent > 40_000 * report.swaps for node in report.nodes)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sed": 1}, "sed"),
        ({"seed": "one"}, "scenario.seed"),
        ({"nodes": []}, "0 nodes"),
        ({"nodes": [{"count": 2}, {"count": 1}]}, "one name"),
        ({"nodes": [{"uplink": 3}]}, "uplink"),
        ({"network": {"delay_s": "long"}}, "network.delay_s"),
        ({"faults": [{"at_s": 1.0, "kind": "flood"}]}, "flood"),
        ({"faults": [{"at_s": 1.0, "kind": "crash", "nodes": ["n1..n3"]}]}, "n3"),
        ({"faults": [{"kind": "heal"}]}, "at_s"),
    ],
)
def test_what_a_scenario_file_gets_wrong_is_named(change: dict[str, object], word: str) -> None:
    plain: dict[str, object] = {"seed": 1, "duration_s": 1.0, "nodes": [{"count": 2}]}
    assert len(parse(plain, "plain").nodes) == 2
    with pytest.raises(ConfigError, match=word):
        parse({**plain, **change}, "changed")


def test_halves_meet_within_30_s_of_the_end_of_a_cut_and_agree_as_before() -> None:
    minute = scenario("partition-minute")
    cut_at_s, healed_at_s = (fault.at_s for fault in minute.faults)
    simulation = Simulation(minute)
    meeting: list[float] = []

    def look() -> None:
        sides = [{run.peer for name, run in simulation.network.runs.items() if side(name) == each} for each in (1, 2)]
        here = [run for name, run in simulation.network.runs.items() if side(name) == 1]
        if all(any(entry.peer in sides[1] for entry in run.state.membership.neighbours()) for run in here):
            meeting.append(simulation.network.now)

    for second in range(int(healed_at_s), int(healed_at_s) + 60):
        simulation.network.at(float(second), look)
    report = simulation.run()
    assert report.problems == ()
    assert meeting and meeting[0] <= healed_at_s + 30.0, "each node of one side has a neighbour of the other"
    before = mean(sample.spread for sample in report.spread if cut_at_s - 60.0 <= sample.at_s < cut_at_s)
    after = mean(sample.spread for sample in report.spread if sample.at_s >= healed_at_s + 60.0)
    assert max(sample.spread for sample in report.spread) > 2.0 * before, "the cut was felt"
    assert after < 1.1 * before


def side(name: str) -> int:
    return 1 if name in {f"n{number}" for number in range(1, 7)} else 2
