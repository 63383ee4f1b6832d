"""What the nodes of a simulation learn: makes each node's mixer, and knows how far any adapter is from the best.

Every node's optimum is what all have in common and a part of its own, so the data are non-IID, and nobody finds
alone what is best for all.
toy: unit curvature, exact gradients, nodes that start apart. quadratic: curvatures a factor apart from node to node
and direction to direction, noisy gradients, one start. Attackers have no say in what is best.
"""

import math
import random
from collections.abc import Iterable, Sequence
from typing import Protocol

from p2pfed.core.messages import Role
from p2pfed.errors import ConfigError
from p2pfed.sim.attackers import Attacker
from p2pfed.sim.learner import ToyMixer
from p2pfed.sim.mixers import MixerSource, SimMixer
from p2pfed.sim.options import NodeOptions

LEARNERS = ("toy", "quadratic")
START_SPREAD = 1.0
"""Standard deviation of each start value among nodes that start apart, and of each own part of their optima."""
COMMON_SPREAD = 2.0
"""Of each value of what the optima have in common."""
CURVATURE_SIGMA = 0.5
"""Of the logarithm of a quadratic's curvatures: most lie within a factor of 2.7 around 1."""


class Problem(MixerSource, Protocol):
    """What a simulation asks of those who learn; `real_population` has real models."""

    def start_values(self, node: NodeOptions) -> Sequence[float]: ...

    def gap(self, values: Sequence[float]) -> float | None:
        """How far these values are from the best, as a loss; None where nothing is learnt or known."""


class Population:
    """The `Problem` of toys and quadratics. Its draws are streams of their own: faults and wires do not change them."""

    def __init__(self, nodes: Iterable[NodeOptions], seed: int) -> None:
        self._seed = seed
        honest = [node for node in nodes if node.role is Role.NODE and node.trains and not node.attack]
        self._best, self._weights = self._optimum(honest)

    def mixer(self, node: NodeOptions) -> SimMixer:
        made = self._quadratic(node) if node.learner == "quadratic" else self._toy(node)
        if not node.attack:
            return made
        return Attacker(made, node.attack, node.attack_scale, self._stream(node, "attack"))

    def start_values(self, node: NodeOptions) -> list[float]:
        if node.learner != "toy":
            return [0.0] * node.values
        rng = self._stream(node, "start")
        return [rng.gauss(0.0, START_SPREAD) for _ in range(node.values)]

    def gap(self, values: Sequence[float]) -> float | None:
        """The mean loss of all nodes at `values`, above the least there is; None where nothing is learnt."""
        if not self._best:
            return None
        triples = zip(self._weights, values, self._best, strict=True)
        return math.fsum(weight * (value - best) ** 2 for weight, value, best in triples) / 2.0

    def _toy(self, node: NodeOptions) -> ToyMixer:
        best = self._centre(node) if node.trains else None
        return ToyMixer(self.start_values(node), best, node.learning_rate)

    def _quadratic(self, node: NodeOptions) -> SimMixer:
        from p2pfed.sim.quadratic import QuadraticLearner, quadratic_mixer

        seed = self._stream(node, "noise").getrandbits(32)
        rate = node.learning_rate if node.trains else 0.0
        learner = QuadraticLearner(self._centre(node), self._curvature(node), rate, node.noise, seed)
        return quadratic_mixer(learner, node.steps_between_swaps, node.clip)

    def _centre(self, node: NodeOptions) -> list[float]:
        common, own = random.Random(f"{self._seed}/common"), self._stream(node, "optimum")
        return [common.gauss(0.0, COMMON_SPREAD) + own.gauss(0.0, START_SPREAD) for _ in range(node.values)]

    def _curvature(self, node: NodeOptions) -> list[float]:
        if node.learner != "quadratic":
            return [1.0] * node.values
        rng = self._stream(node, "curvature")
        return [rng.lognormvariate(0.0, CURVATURE_SIGMA) for _ in range(node.values)]

    def _optimum(self, nodes: Sequence[NodeOptions]) -> tuple[list[float], list[float]]:
        """Where the mean of all losses is least, and its curvature there."""
        if len({(node.values, node.learner) for node in nodes}) > 1:
            raise ConfigError("nodes of one scenario need one learner and one number of values")
        if not nodes:
            return [], []
        size = nodes[0].values
        pulls, weights = [0.0] * size, [0.0] * size
        for node in nodes:
            for at, (weight, centre) in enumerate(zip(self._curvature(node), self._centre(node), strict=True)):
                pulls[at] += weight * centre
                weights[at] += weight
        best = [pull / weight for pull, weight in zip(pulls, weights, strict=True)]
        return best, [weight / len(nodes) for weight in weights]

    def _stream(self, node: NodeOptions, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}/{node.name}/{purpose}")
