"""The methods gossip is compared with: each trains a fleet and yields the points of its curve.

Bytes are the lenient figure everywhere, an ideal ring all-reduce: 2 (N-1)/N payloads a node. Through a server each
node sends and receives one payload, 2 in all, and the server N times that; the report names both.
"""

from collections.abc import Callable, Iterator, Mapping

import torch

from p2pfed.train.loop import collate, token_losses, warmup
from tests.bench.learning.fleet import Fleet, Point, Values, mean_of, set_values, values_of
from tests.bench.learning.payloads import received

Method = Callable[[Fleet], Iterator[Point]]


def isolated(fleet: Fleet) -> Iterator[Point]:
    """Every device on its own. Its consensus is an average that nobody made."""
    for step in range(1, fleet.model.steps + 1):
        for learner in fleet.learners:
            learner.step()
        if step in fleet.model.checkpoints:
            yield fleet.point(step, 0.0)


def centralised(fleet: Fleet) -> Iterator[Point]:
    """The upper bound: the devices' gradients are averaged at each step, by one optimizer.

    A step is one batch of all devices' batches, each device's mean loss counting alike: the same gradient.
    """
    first, training, cpu = fleet.learners[0], fleet.network.training, torch.device("cpu")
    optimizer, factors = first._optimizer, list(first.adapter.factors.values())
    payload = received(fleet.start, "float32")[1]
    for step in range(1, fleet.model.steps + 1):
        rows = [[each.examples[at] for at in each._next_batch()] for each in fleet.learners]
        batch = collate([row for own in rows for row in own], cpu)
        device = torch.tensor([index for index, own in enumerate(rows) for _ in own])[batch.owner]
        share = 1.0 / (torch.bincount(device)[device] * len(rows))
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * warmup(step - 1, training.warmup_steps)
        optimizer.zero_grad(set_to_none=True)
        (token_losses(first.adapter.model, batch) * share).sum().backward()
        torch.nn.utils.clip_grad_norm_(factors, training.gradient_norm_max)
        optimizer.step()
        if step in fleet.model.checkpoints:
            for other in fleet.learners[1:]:
                set_values(other, values_of(first))
            yield fleet.point(step, ring_bytes(payload, len(rows)) * step, alike=True)


def fedavg(fleet: Fleet) -> Iterator[Point]:
    """All nodes average every `every` steps; AdamW's moments stay where they are.

    Quantised, both ways: nodes send their difference to `reference` (the start, or what the last round gave, which
    all of them hold), and get back the mean of what was sent, quantised once more.
    """
    arm, nodes = fleet.cell.arm, len(fleet.learners)
    reference, sent = fleet.start, 0.0
    for step in range(1, fleet.model.steps + 1):
        for learner in fleet.learners:
            learner.step()
        if step % arm.every == 0:
            up = [received(_minus(values_of(learner), reference), arm.encoding) for learner in fleet.learners]
            down, size = received(mean_of([values for values, _ in up]), arm.encoding)
            agreed = _plus(reference, down)
            for learner in fleet.learners:
                set_values(learner, agreed)
            sent += ring_bytes(size, nodes)
            reference = agreed if arm.reference == "round" else fleet.start
        if step in fleet.model.checkpoints:
            yield fleet.point(step, sent, alike=step % arm.every == 0)


METHODS: Mapping[str, Method] = {"isolated": isolated, "centralised": centralised, "fedavg": fedavg}


def ring_bytes(payload: int, nodes: int) -> float:
    """What one node sends so that all hold the mean."""
    return 2.0 * (nodes - 1) / nodes * payload


def _minus(left: Values, right: Values) -> Values:
    return {name: left[name] - right[name] for name in left}


def _plus(left: Values, right: Values) -> Values:
    return {name: left[name] + right[name] for name in left}
