"""What the nodes of the asynchrony bench learn: quadratics with a known optimum, or the tiny real model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.bench.asynchrony_network import Flat, Network

DIMENSIONS = 192
"""Three blocks of int4."""
RATE = 0.1
CURVATURE = (0.1, 1.0)
"""Of the directions, log-uniform; each node's own by a factor around it."""
AWAY = 3.0
"""Standard deviation of the common optimum's coordinates; the start is 0."""
APART = 1.0
"""Of the nodes' optima around it."""
NOISE = 0.5
"""Of a gradient's coordinates."""
NOISE_STEPS = 256


class Quadratic:
    """Gradient descent on 0.5 * h . (x - c)^2 with noisy gradients."""

    def __init__(self, curvature: Flat, optimum: Flat, rng: np.random.Generator) -> None:
        self.curvature, self.optimum = curvature, optimum
        self._rng = rng
        self._x = np.zeros_like(optimum)
        self._noise: list[Flat] = []

    def step(self) -> None:
        if not self._noise:
            self._noise = list(self._rng.standard_normal((NOISE_STEPS, self._x.size)) * NOISE)
        self._x -= RATE * (self.curvature * (self._x - self.optimum) + self._noise.pop())

    def value(self) -> Flat:
        return self._x.copy()

    def move(self, by: Flat) -> None:
        self._x += by


@dataclass(frozen=True, slots=True)
class Point:
    """The network at one moment. `plain` counts all nodes alike, `paced` by the steps they have made.

    The second is what the steps themselves minimise where a rule keeps the sum: a node ten times as fast pulls ten
    times as often. For the real model there is one loss, of all domains alike, in `plain`.
    """

    time_s: float
    steps: float
    swaps: float
    plain: float
    plain_mean: float
    paced: float
    paced_mean: float
    spread: float
    """Root mean square distance of nodes to their mean."""


class Quadratics:
    """All nodes' problems of one seed, and the gap of any point to the best there is."""

    def __init__(self, nodes: int, seed: int) -> None:
        rng = np.random.default_rng([seed, nodes])
        common = np.exp(rng.uniform(math.log(CURVATURE[0]), math.log(CURVATURE[1]), DIMENSIONS))
        self.curvatures = np.minimum(common * np.exp(0.3 * rng.standard_normal((nodes, DIMENSIONS))), 2.0)
        self.optima = AWAY * rng.standard_normal(DIMENSIONS) + APART * rng.standard_normal((nodes, DIMENSIONS))
        self.learners = [
            Quadratic(curvature, optimum, np.random.default_rng([seed, nodes, index]))
            for index, (curvature, optimum) in enumerate(zip(self.curvatures, self.optima, strict=True))
        ]

    def look(self, network: Network) -> Point:
        values = np.array([node.learner.value() for node in network.nodes])
        steps = np.array([float(node.steps) for node in network.nodes])
        mean = values.mean(axis=0)
        plain, paced = self._gaps(values, mean, np.ones_like(steps)), self._gaps(values, mean, steps)
        spread = float(np.sqrt(np.square(values - mean).sum(axis=1).mean()))
        return Point(network.now, float(steps.mean()), swaps_of(network), *plain, *paced, spread)

    def _gaps(self, values: Flat, mean: Flat, weights: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Of the mean over nodes, and of their mean: exact, the weighted sum is a quadratic around its own optimum."""
        shares = weights / weights.sum()
        curvature = shares @ self.curvatures
        best = shares @ (self.curvatures * self.optima) / curvature
        nodes = 0.5 * (np.square(values - best) @ curvature)
        return float(nodes.mean()), float(0.5 * (np.square(mean - best) @ curvature))


def swaps_of(network: Network) -> float:
    """Mixes a node."""
    return sum(node.mixes for node in network.nodes) / len(network.nodes)


class RealNodes:
    """The tiny model on eight devices of one domain each; `tests.bench.learning` has the data and the measure."""

    def __init__(self, rate: float, seed: int) -> None:
        from tests.bench.learning.cells import Arm, Cell
        from tests.bench.learning.fleet import Fleet

        self.fleet = Fleet(Cell(Arm("asynchrony", "gossip", every=4), "glassllm", rate, seed))
        self.learners = [_Flattened(learner) for learner in self.fleet.learners]

    def look(self, network: Network) -> Point:
        values = [node.learner.value() for node in network.nodes]
        mean = np.mean(values, axis=0)
        nodes = float(np.mean([self._loss(value) for value in values]))
        consensus = self._loss(mean)
        spread = float(np.sqrt(np.square(np.array(values) - mean).sum(axis=1).mean()))
        steps = network.steps / len(network.nodes)
        return Point(network.now, steps, swaps_of(network), nodes, consensus, nodes, consensus, spread)

    def _loss(self, flat: Flat) -> float:
        first = self.learners[0]
        return self.fleet.loss(first.absolute(flat)).all


class _Flattened:
    """A LoraLearner as one vector of differences to the start, tensors by name."""

    def __init__(self, learner: "object") -> None:
        from p2pfed.train.learner import LoraLearner

        assert isinstance(learner, LoraLearner)
        self._learner = learner
        self._start = learner.start()
        self._names: Sequence[str] = sorted(self._start)

    def step(self) -> None:
        self._learner.step()

    def value(self) -> Flat:
        now = self._learner.values()
        parts = [(now[name] - self._start[name]).ravel() for name in self._names]
        return np.concatenate(parts).astype(np.float64)

    def move(self, by: Flat) -> None:
        self._learner.move(self._cut(by))

    def absolute(self, flat: Flat) -> "dict[str, npt.NDArray[np.float32]]":
        return {name: self._start[name] + part for name, part in self._cut(flat).items()}

    def _cut(self, flat: Flat) -> "dict[str, npt.NDArray[np.float32]]":
        cut, at = {}, 0
        for name in self._names:
            shape = self._start[name].shape
            size = int(np.prod(shape))
            cut[name] = flat[at : at + size].reshape(shape).astype(np.float32)
            at += size
        return cut
