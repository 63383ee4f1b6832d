"""The control group: a node's learner, its data and its steps, without a network.

The same class, the same initial factors and the same order of rows as the gossiping node of that trade; the loss is
smoothed as the node's own. So what differs in the end is what the neighbours gave.
"""

from collections.abc import Callable

from p2pfed.net.worker import LOSS_SMOOTHING
from p2pfed.ports import Learner


def train_alone(
    learner: Learner, steps: int, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> list[tuple[int, float]]:
    """(step, smoothed loss) of every step."""
    losses: list[tuple[int, float]] = []
    known: float | None = None
    for step in range(1, steps + 1):
        loss = learner.step().loss
        known = loss if known is None else LOSS_SMOOTHING * known + (1.0 - LOSS_SMOOTHING) * loss
        losses.append((step, known))
        on_step(step, known)
    return losses
