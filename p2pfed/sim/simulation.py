"""Runs one scenario: builds the network, schedules faults and samples, checks, and reports."""

import math

from p2pfed.core.messages import Role
from p2pfed.sim.checks import (
    ROUNDING,
    Checker,
    components,
    contraction_ratio,
    mutual_problems,
)
from p2pfed.sim.churn import Coming
from p2pfed.sim.network import Network
from p2pfed.sim.population import Population, Problem
from p2pfed.sim.process import Run
from p2pfed.sim.report import NodeReport, Sample, SimulationReport
from p2pfed.sim.scenario import Fault, Scenario

SPREAD_FLOOR = 1e-10
"""Share of the first squared spread under which the rest may be rounding (1e-5 of the distance)."""
THOROUGH_NODES_MAX = 150
WATCH_EVERY = 64
"""In larger networks only one in so many events of a node is followed by a look at its state."""


def run(scenario: Scenario) -> SimulationReport:
    """Simulate to the end. `problems` of the report is empty where all held."""
    return Simulation(scenario).run()


class Simulation:
    """One scenario under way. `network` and `checker` may be looked at between `run` calls of tests."""

    def __init__(self, scenario: Scenario, population: Problem | None = None) -> None:
        """`population` None: the toys or quadratics that the scenario names."""
        self.scenario = scenario
        self.checker = Checker(thorough=len(scenario.nodes) <= THOROUGH_NODES_MAX)
        self.population = population or Population(scenario.nodes, scenario.seed)
        every = 1 if self.checker.thorough else WATCH_EVERY
        self.network = Network(scenario.network, scenario.seed, self.population, self.checker, every)
        self.samples: list[Sample] = []
        for node in scenario.nodes:
            self.network.add(node)
        for fault in scenario.faults:
            self.network.at(fault.at_s, self._strike, fault)
        Coming(scenario, self.network)
        for number in range(int(scenario.duration_s / scenario.sample_interval_s) + 1):
            self.network.at(number * scenario.sample_interval_s, self._sample)

    def run(self) -> SimulationReport:
        self.advance(self.scenario.duration_s)
        return self.finish()

    def advance(self, to_s: float) -> None:
        """For those who want to look at it on the way."""
        self.network.clock.run_until(min(to_s, self.scenario.duration_s))

    def finish(self) -> SimulationReport:
        self._check_end()
        return self._report()

    @property
    def nodes(self) -> list[Run]:
        return [run for run in self.network.runs.values() if run.options.role is Role.NODE]

    @property
    def all_runs(self) -> list[Run]:
        """Also those that ended before a restart."""
        return list(dict.fromkeys([*self.checker.ended, *self.network.runs.values()]))

    def _strike(self, fault: Fault) -> None:
        network = self.network
        match fault.kind:
            case "cut":
                network.cut(fault.groups, fault.reset)
            case "heal":
                network.heal()
        for name in fault.nodes:
            match fault.kind:
                case "crash":
                    network.crash(name, fault.power_loss)
                case "restart":
                    network.restart(name, fault.keep)
                case "stop":
                    network.stop(name)
                case "break-links":
                    network.break_links(name)

    def _sample(self) -> None:
        rows = [
            run.mixer.values
            for run in self.network.runs.values()
            if run.running and run.mixer is not None and not run.options.attack
        ]
        if not rows:
            return
        means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
        squares = math.fsum(math.dist(row, means) ** 2 for row in rows)
        gaps = [gap for row in rows if (gap := self.population.gap(row)) is not None]
        self.samples.append(
            Sample(
                at_s=self.network.now,
                nodes=len(rows),
                swaps=len(self.checker.swaps),
                bytes_sent=self.network.bytes_sent,
                spread=math.sqrt(squares / len(rows)),
                gap=math.fsum(gaps) / len(gaps) if gaps else None,
                gap_worst=max(gaps, default=None),
                gap_mean_adapter=self.population.gap(means),
            )
        )

    def contraction(self) -> float | None:
        """Over the time when all nodes were there: from the first sample with every node on."""
        last_start = max(node.start_s for node in self.scenario.nodes)
        usable = [(sample.swaps, sample.spread**2) for sample in self.samples if sample.at_s > last_start]
        return contraction_ratio(usable, len(self.nodes), SPREAD_FLOOR * usable[0][1]) if usable else None

    def _drift(self) -> float:
        return math.hypot(*self.checker.drift()) / max(1, len(self.nodes))

    def _half_done_counted(self) -> int:
        return sum(run.state.statistics.half_done for run in self.all_runs)

    def _check_end(self) -> None:
        expect, problem = self.scenario.expect, self.checker.problem
        if expect.quiet:
            for sentence in mutual_problems(list(self.network.runs.values())):
                problem(sentence)
        parts = components(self.nodes)
        if expect.quiet and parts != expect.components:
            problem(f"the network is in {parts} parts, not {expect.components}")
        self._check_halves()
        if expect.balanced:
            self._check_balance()
        if len(self.checker.swaps) < expect.swaps_min:
            problem(f"{len(self.checker.swaps)} swaps, fewer than {expect.swaps_min}")
        self._check_partners(expect.partners_share_min)
        self._check_speed()
        kinds = {kind for run in self.all_runs for kind in run.reports}
        for kind in expect.log:
            if kind not in kinds:
                problem(f"no node logged {kind}")
        for kind in expect.log_absent:
            if kind in kinds:
                problem(f"a node logged {kind}")

    def _check_halves(self) -> None:
        """A node that ended takes at most the one swap with it that it was in."""
        under_way = sum(run.state.exchange.busy for run in self.nodes if run.running)
        excused = self._half_done_counted() + len(self.checker.ended) + under_way
        halves = sum(not half.run.options.attack for half in self.checker.halves.values())  # liars mix as they like
        if halves > excused:
            self.checker.problem(f"{halves} swaps were mixed by one partner, {excused} are known of")
        limit = self.scenario.expect.half_done_max
        if limit is not None and self._half_done_counted() > limit:
            self.checker.problem(f"{self._half_done_counted()} half-done swaps counted, more than {limit}")

    def _check_balance(self) -> None:
        starts = [self.population.start_values(run.options) for run in self.nodes]
        values = [run.mixer.values for run in self.nodes if run.mixer is not None]
        before = [math.fsum(column) for column in zip(*starts, strict=True)]
        after = [math.fsum(column) for column in zip(*values, strict=True)]
        drift = self.checker.drift() or [0.0] * len(before)
        allowed = ROUNDING * self.checker.scale * (1 + len(self.checker.swaps))
        errors = [abs(new - old - known) for new, old, known in zip(after, before, drift, strict=True)]
        if max(errors) > allowed:
            self.checker.problem(f"the sum of all adapters changed by {max(errors):.3g} that nothing explains")

    def _check_partners(self, share: float) -> None:
        for run in self.nodes if share > 0.0 else ():
            neighbours = [entry.peer for entry in run.state.membership.neighbours()] if run.running else []
            met = sum(peer in run.partners for peer in neighbours)
            if met < share * len(neighbours):
                self.checker.problem(
                    f"{run.name} swapped with {met} of {len(neighbours)} neighbours, less than {share}"
                )

    def _check_speed(self) -> None:
        expect, speed = self.scenario.expect, self.contraction()
        low, high = expect.contraction_min, expect.contraction_max
        if low is not None and (speed is None or speed < low):
            self.checker.problem(f"contraction at {speed} of random pair averaging, less than {low}")
        if high is not None and (speed is None or speed > high):
            self.checker.problem(f"contraction at {speed} of random pair averaging, more than {high}")
        self._check_gap(expect.gap_share_max)
        share = expect.spread_share_max
        if share is not None:
            largest = max(sample.spread for sample in self.samples)
            if self.samples[-1].spread > share * largest:
                self.checker.problem(f"spread {self.samples[-1].spread:.3g} of {largest:.3g}, more than {share} of it")

    def _check_gap(self, share: float | None) -> None:
        first, last = self.samples[0].gap, self.samples[-1].gap
        if share is not None and (first is None or last is None or last > share * first):
            self.checker.problem(f"loss {last} above the optimum of {first} at first, more than {share} of it")

    def _report(self) -> SimulationReport:
        by_name: dict[str, list[Run]] = {name: [] for name in self.network.runs}
        for run in self.all_runs:
            by_name[run.name].append(run)
        return SimulationReport(
            scenario=self.scenario.name,
            seed=self.scenario.seed,
            duration_s=self.scenario.duration_s,
            nodes=tuple(self._node_report(name, runs) for name, runs in by_name.items()),
            swaps=len(self.checker.swaps),
            half_done=len(self.checker.halves),
            half_done_counted=self._half_done_counted(),
            spread=tuple(self.samples),
            contraction=self.contraction(),
            drift=self._drift(),
            events=self.network.history.events,
            messages=tuple(sorted((kind.__name__, count) for kind, count in self.network.messages.items())),
            history=self.network.history.digest(),
            problems=tuple(self.checker.problems),
        )

    def _node_report(self, name: str, runs: list[Run]) -> NodeReport:
        last = self.network.runs[name]
        counts = [run.state.statistics for run in runs]
        log: dict[str, int] = {}
        for run in runs:
            for kind, count in run.reports.items():
                log[kind] = log.get(kind, 0) + count
        return NodeReport(
            name=name,
            running=last.running,
            neighbours=len(last.state.membership.neighbours()) if last.running else 0,
            steps=last.mixer.progress().steps if last.mixer is not None else 0,
            begun=sum(each.begun for each in counts),
            answered=sum(each.answered for each in counts),
            finished=sum(each.finished for each in counts),
            declined=sum(each.declined for each in counts),
            aborted=sum(each.aborted for each in counts),
            half_done=sum(each.half_done for each in counts),
            faults=sum(each.faults for each in counts),
            partners=len(dict.fromkeys(peer for run in runs for peer in run.partners)),
            bytes_sent=sum(run.bytes_sent for run in runs),
            events=sum(run.events for run in runs),
            log=tuple(sorted(log.items())),
        )
