"""The methods gossip is compared with: each trains a fleet and yields the points of its curve.

Bytes are the lenient figure everywhere, an ideal ring all-reduce: 2 (N-1)/N payloads a node. Through a server each
node sends and receives one payload, 2 in all, and the server N times that; the report names both.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from p2pfed.config import GossipConfig
from p2pfed.mixer import AdapterMixer
from p2pfed.ports import Encoding
from p2pfed.train.examples import Example
from p2pfed.train.loop import collate, make_optimizer, token_losses, warmup
from tests.bench.learning.fleet import Fleet, Point, Values, mean_of
from tests.bench.learning.network import network
from tests.bench.learning.payloads import received

Method = Callable[[Fleet], Iterator[Point]]

PAIR_WEIGHT = 0.5
"""Both halves of a pair meet in the middle."""


def isolated(fleet: Fleet) -> Iterator[Point]:
    """Every device on its own. Its consensus is an average that nobody made."""
    for step in range(1, fleet.model.steps + 1):
        fleet.train()
        if step in fleet.model.checkpoints:
            yield fleet.point(step, 0.0)


def centralised(fleet: Fleet) -> Iterator[Point]:
    """All gradients are averaged at each step, by one optimizer: the same steps, but none of them on one's own.

    Not a bound: nodes that step apart and average make longer steps together, with less noise in them.

    A step is one batch of all devices' batches, each device's mean loss counting alike: the same gradient.
    """
    first, training = fleet.learners[0], fleet.network.training
    factors = list(first.adapter.factors.values())
    optimizer = make_optimizer(factors, training)
    payload = received(fleet.start, Encoding.FLOAT32)[1]
    for step in range(1, fleet.model.steps + 1):
        rows = [[each.examples[at] for at in each.next_batch()] for each in fleet.learners]
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * warmup(step - 1, training.warmup_steps)
        optimizer.zero_grad(set_to_none=True)
        pooled_loss(first.adapter.model, rows).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(factors, training.gradient_norm_max)
        optimizer.step()
        if step in fleet.model.checkpoints:
            for other in fleet.learners[1:]:
                other.adapter.assign(first.values())
            yield fleet.point(step, ring_bytes(payload, len(rows)) * step, alike=True)


def pooled_loss(model: object, rows: Sequence[Sequence[Example]]) -> torch.Tensor:
    """Mean over devices of each device's mean loss of a completion token, in one pass."""
    batch = collate([row for own in rows for row in own], torch.device("cpu"))
    device = torch.tensor([index for index, own in enumerate(rows) for _ in own])[batch.owner]
    return (token_losses(model, batch) / (torch.bincount(device)[device] * len(rows))).sum()


def fedavg(fleet: Fleet) -> Iterator[Point]:
    """All nodes average every `every` steps; AdamW's moments stay where they are.

    Quantised, both ways: nodes send their difference to `reference` (the start, or what the last round gave, which
    all of them hold), and get back the mean of what was sent, quantised once more.
    """
    arm, nodes = fleet.cell.arm, len(fleet.learners)
    reference, sent = fleet.start, 0.0
    for step in range(1, fleet.model.steps + 1):
        fleet.train()
        if step % arm.every == 0:
            up = [received(_minus(learner.values(), reference), arm.encoding) for learner in fleet.learners]
            down, size = received(mean_of([values for values, _ in up]), arm.encoding)
            agreed = _plus(reference, down)
            for learner in fleet.learners:
                learner.adapter.assign(agreed)
            sent += ring_bytes(size, nodes)
            reference = agreed if arm.reference == "round" else fleet.start
        if step in fleet.model.checkpoints:
            yield fleet.point(step, sent, alike=step % arm.every == 0)


def pairs(fleet: Fleet) -> Iterator[Point]:
    """The product's gossip rule in lockstep, without its protocol: what the rule is worth where nothing goes wrong.

    Every `every` steps all nodes are paired at random, by a draw that is the same for all arms, and each pair swaps. Of
    an odd number of nodes one rests. A node sends one payload a swap.
    """
    arm = fleet.cell.arm
    gossip = GossipConfig(arm.every, arm.encoding.value, clip=arm.clip, momentum=arm.momentum)
    mixers = [AdapterMixer(learner, gossip) for learner in fleet.learners]
    sent = 0.0
    steps = fleet.model.steps
    for step in range(1, steps + arm.settle * arm.every + 1):
        if step <= steps:
            fleet.train()
        if step % arm.every == 0:
            encoding = arm.encoding if step <= steps else arm.settle_encoding
            order = random.Random(f"{fleet.cell.seed}/{step}").sample(mixers, len(mixers))
            for left, right in zip(order[::2], order[1::2], strict=False):
                first, second = left.export(encoding), right.export(encoding)
                left.mix(first, second, encoding, PAIR_WEIGHT)
                right.mix(second, first, encoding, PAIR_WEIGHT)
                sent += (len(first) + len(second)) / len(mixers)
        if step in fleet.model.checkpoints or step == steps + arm.settle * arm.every:
            yield fleet.point(min(step, steps), sent)


METHODS: Mapping[str, Method] = {
    "isolated": isolated,
    "centralised": centralised,
    "fedavg": fedavg,
    "pairs": pairs,
    "network": network,
}


def ring_bytes(payload: int, nodes: int) -> float:
    """What one node sends so that all hold the mean."""
    return 2.0 * (nodes - 1) / nodes * payload


def _minus(left: Values, right: Values) -> Values:
    return {name: left[name] - right[name] for name in left}


def _plus(left: Values, right: Values) -> Values:
    return {name: left[name] + right[name] for name in left}
