"""A population of real models: `real.real_learners` under the production mixer, one for each training node.

`Simulation(scenario, RealPopulation(...))`: step times, wires and faults are the scenario's, values are the models'.
"""

from collections.abc import Callable, Mapping, Sequence

from p2pfed.config import GossipConfig
from p2pfed.ports import Learner
from p2pfed.sim.mixers import SimMixer
from p2pfed.sim.options import NodeOptions
from p2pfed.sim.quadratic import AdaptedMixer


class RealPopulation:
    """Implements `population.Problem`. A node that starts anew without a checkpoint has its learner as it was given."""

    def __init__(
        self,
        learners: Mapping[str, Learner],
        gossip: GossipConfig,
        held_out: Callable[[Sequence[float]], float] | None = None,
    ) -> None:
        """`learners` by the names of nodes. `held_out`: a loss of an adapter's values, in the order of `AdaptedMixer`;
        it is asked for every node at every sample, so it had better be quick."""
        self._learners = dict(learners)
        self._gossip = gossip
        self._held_out = held_out
        self._as_given = {name: learner.save() for name, learner in learners.items()}

    def mixer(self, node: NodeOptions) -> SimMixer:
        learner = self._learners[node.name]
        learner.load(self._as_given[node.name])
        return AdaptedMixer(learner, self._gossip)

    def start_values(self, node: NodeOptions) -> Sequence[float]:
        return AdaptedMixer(self._learners[node.name], self._gossip).start

    def gap(self, values: Sequence[float]) -> float | None:
        return self._held_out(values) if self._held_out is not None else None
