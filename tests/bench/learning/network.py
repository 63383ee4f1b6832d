"""The product's own core in the simulator's virtual time, around the real learners: nothing here is in lockstep.

- Devices start within a round, each at a moment of its own, and step at a speed of their own. Who has made its steps
  goes on swapping by the timer, once in a round of a usual device.
- Equal steps: a node trains until it has made its own; what a crash takes from it (`checkpoint_interval_s`) it makes
  again. Equal time: all stop training when a usual fleet, never down, would have made the steps on average.
- A point is taken when the mean node has made so many steps, or in equal time when that much of it is over. All nodes
  count that have joined by then, also those that are down, with what they held when they fell.
- Bytes are all frames that were sent, of every kind. The hellos of new links and what TCP and Noise add are not in it.

Speeds, starts, outages and late joiners are streams of their own by node: arms of one seed have them in common.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from p2pfed.config import GossipConfig
from p2pfed.core.events import Effect, Event, MessageReceived
from p2pfed.core.messages import Part
from p2pfed.sim.churn import Coming
from p2pfed.sim.device import STEP_S
from p2pfed.sim.mixers import SimMixer
from p2pfed.sim.network import Network
from p2pfed.sim.options import NetworkOptions, NodeOptions
from p2pfed.sim.process import Run
from p2pfed.sim.quadratic import AdaptedMixer
from p2pfed.sim.scenario import Churn, Scenario
from p2pfed.sim.topology import Topology, linked
from tests.bench.learning.cells import Arm
from tests.bench.learning.fleet import Fleet, Point

OUTAGE_ROUNDS = 4
"""Mean length of an outage, as in the experiments that chose the rule."""
RANDOM_DEGREE = 3
"""Neighbours in a random graph: less than half of eight nodes."""
TIMES_MAX = 20.0
"""A fleet that needs so many times its usual time has come to a stop somewhere."""


def network(fleet: Fleet) -> Iterator[Point]:
    """`fleet.facts` are there once the last point is."""
    swarm = Swarm(fleet)
    for step in fleet.model.checkpoints:
        swarm.train_to(step)
        yield swarm.point(step)
    swarm.end_training()
    if fleet.cell.arm.settle:
        swarm.advance(fleet.cell.arm.settle * swarm.round_s)
        yield swarm.point(fleet.model.steps)
    fleet.facts.update(swarm.facts())


def devices(arm: Arm, nodes: int, steps: int, seed: int) -> tuple[NodeOptions, ...]:
    """The nodes of a cell, by numbers from 1; without those of its options that only a population reads."""
    names = tuple(f"n{number}" for number in range(1, nodes + 1))
    round_s = arm.every * STEP_S
    late = random.Random(f"{seed}/late").sample(names, arm.late)
    made = []
    for name in names:
        rng = random.Random(f"{seed}/{name}/device")
        start_s, speed = rng.uniform(0.0, round_s), arm.speeds ** rng.uniform(-0.5, 0.5)
        made.append(
            NodeOptions(
                name,
                start_s=start_s,
                remembers=nodes,
                step_s=STEP_S * speed,
                steps_between_swaps=arm.every,
                steps_max=steps if arm.equal == "steps" else 0,
                swap_interval_s=round_s,
                encoding=arm.encoding,
                members=names if arm.members else (),
            )
        )
    half_s = usual_s(made, steps) / 2.0
    joined = tuple(replace(node, start_s=node.start_s + half_s * (node.name in late)) for node in made)
    return linked(joined, Topology(arm.topology, min(RANDOM_DEGREE, nodes - 1)), seed)


def usual_s(nodes: Sequence[NodeOptions], steps: int) -> float:
    """The time in which they make so many steps each on average, where all of them train all the time."""
    return steps * len(nodes) / math.fsum(1.0 / node.step_s for node in nodes)


class Swarm:
    """The simulated network of one cell, under way."""

    def __init__(self, fleet: Fleet) -> None:
        arm, seed = fleet.cell.arm, fleet.cell.seed
        self.round_s = arm.every * STEP_S
        self._fleet = fleet
        self._nodes = devices(arm, len(fleet.learners), fleet.model.steps, seed)
        self._usual_s = usual_s(self._nodes, fleet.model.steps)
        self._tally = _Tally()
        self._network = Network(NetworkOptions(), seed, _Mixers(fleet), self._tally)
        for node in self._nodes:
            self._network.add(node)
        churn = Churn(arm.down, OUTAGE_ROUNDS * self.round_s, from_s=self.round_s)
        Coming(Scenario(arm.name, seed, math.inf, self._nodes, churn=churn), self._network)

    def advance(self, time_s: float) -> None:
        self._network.clock.run_until(self._network.now + time_s)

    def train_to(self, step: int) -> None:
        steps = self._fleet.model.steps
        if self._fleet.cell.arm.equal == "time":
            # Half a round is what starting one after another costs the mean node.
            self._network.clock.run_until(self.round_s / 2.0 + self._usual_s * step / steps)
            return
        while not self._have_made(step):
            if self._network.now > TIMES_MAX * self._usual_s:
                raise RuntimeError(f"after {self._network.now:.0f} s nodes have made {self._steps()} steps of {step}")
            self.advance(STEP_S)

    def _have_made(self, step: int) -> bool:
        done = self._steps()
        return min(done) >= step if step == self._fleet.model.steps else sum(done) >= step * len(done)

    def _steps(self) -> list[int]:
        return [learner.progress().steps for learner in self._fleet.learners]

    def end_training(self) -> None:
        """Also of those that are down and will be back: `steps_max` is what each has made."""
        for run in self._network.runs.values():
            assert run.mixer is not None
            steps_max = max(1, run.mixer.progress().steps)
            run.options = replace(run.options, steps_max=steps_max)
            run.state.settings = replace(run.state.settings, steps_max=steps_max)

    def point(self, step: int) -> Point:
        joined = [at for at, node in enumerate(self._nodes) if node.name in self._network.runs]
        return self._fleet.point(step, self._network.bytes_sent / len(self._nodes), of=joined)

    def facts(self) -> dict[str, float]:
        """Bytes and swaps are of the mean node."""
        counts = [run.state.statistics for run in dict.fromkeys([*self._tally.ended, *self._network.runs.values()])]
        nodes, steps = len(self._nodes), self._steps()
        return {
            "adapter_bytes": self._tally.adapter_bytes / nodes,
            "swaps": sum(each.finished for each in counts) / nodes,
            "declined": sum(each.declined for each in counts) / nodes,
            "aborted": sum(each.aborted for each in counts),
            "half_done": sum(each.half_done for each in counts),
            "adopted": sum(each.adopted for each in counts),
            "clipped_share": sum(each.clipped for each in counts) / max(1, self._tally.mixes),
            "crashes": len(self._tally.ended),
            "steps_fewest": min(steps),
            "steps_most": max(steps),
            "virtual_s": self._network.now,
        }


class _Mixers:
    """A `MixerSource`: each run of a node gets a new learner and the product's mixer around it."""

    def __init__(self, fleet: Fleet) -> None:
        arm = fleet.cell.arm
        self._fleet = fleet
        self._gossip = GossipConfig(arm.every, arm.encoding.value, clip=arm.clip, momentum=arm.momentum)

    def mixer(self, node: NodeOptions) -> SimMixer:
        return AdaptedMixer(self._fleet.renew(int(node.name[1:]) - 1), self._gossip)


class _Tally:
    """A `Watcher` that counts and checks nothing: the simulator's own tests do."""

    def __init__(self) -> None:
        self.adapter_bytes = 0
        """That arrived; a crash may cut off a few that were sent."""
        self.mixes = 0
        self.ended: list[Run] = []

    def handled(self, run: Run, event: Event, effects: list[Effect], now: float) -> None:
        if isinstance(event, MessageReceived) and isinstance(event.message, Part):
            self.adapter_bytes += len(event.message.data)

    def mixed(self, run: Run, swap: int, before: Sequence[float], now: float) -> None:
        self.mixes += 1

    def adopted(self, run: Run, before: Sequence[float]) -> None: ...

    def restarted(self, run: Run, before: Sequence[float]) -> None: ...

    def ended_run(self, run: Run) -> None:
        self.ended.append(run)
