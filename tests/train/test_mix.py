"""Two real learners and the gossip rule around them: they learn from each other, and resume bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from p2pfed.config import GossipConfig
from p2pfed.mixer import AdapterMixer
from p2pfed.ports import Encoding
from p2pfed.train.learner import LoraLearner
from p2pfed.train.loop import collate, token_losses
from tests.train.conftest import SENTENCES

pytestmark = pytest.mark.model
Make = Callable[..., LoraLearner]
HALF = len(SENTENCES) // 2
MOMENTA = ("local", "quasi-global", "gossip")


def pair(make_learner: Make, momentum: str, clip: float = 2.0) -> tuple[AdapterMixer, AdapterMixer]:
    gossip = GossipConfig(momentum=momentum, clip=clip)
    one, two = (make_learner(sentences=part, batch_rows=2) for part in (SENTENCES[:HALF], SENTENCES[HALF:]))
    return AdapterMixer(one, gossip), AdapterMixer(two, gossip)


def swap_round(one: AdapterMixer, two: AdapterMixer) -> None:
    """Four steps each, one swap that a further step of the first overlaps."""
    for mixer in (one, two):
        for _ in range(4):
            mixer.step()
    mine, theirs = one.export(Encoding.INT4), two.export(Encoding.INT4)
    one.step()
    one.admit(theirs, Encoding.INT4)
    two.admit(mine, Encoding.INT4)
    one.mix(mine, theirs, Encoding.INT4, 0.5)
    two.mix(theirs, mine, Encoding.INT4, 0.5)


def loss_on(mixer: AdapterMixer, examples: LoraLearner) -> float:
    assert isinstance(mixer.learner, LoraLearner)
    with torch.no_grad():
        batch = collate(examples.examples, torch.device("cpu"))
        return float(token_losses(mixer.learner.adapter.model, batch).mean())


@pytest.mark.parametrize("momentum", MOMENTA)
def test_two_that_mix_in_four_bits_learn_what_the_other_has_seen(make_learner: Make, momentum: str) -> None:
    one, two = pair(make_learner, momentum)
    alone = AdapterMixer(make_learner(sentences=SENTENCES[:HALF], batch_rows=2), GossipConfig())
    other = make_learner(sentences=SENTENCES[HALF:])
    before = loss_on(one, other)
    for _ in range(6):
        swap_round(one, two)
    for _ in range(one.progress().steps):
        alone.step()
    mixed, isolated = loss_on(one, other), loss_on(alone, other)
    print(f"{momentum}: before {before:.3f}, alone {isolated:.3f}, mixed {mixed:.3f}")
    assert mixed < 0.8 * before and mixed < isolated
    assert one.progress().mixes == 6


@pytest.mark.parametrize("momentum", MOMENTA)
def test_resume_in_the_middle_of_a_round(make_learner: Make, momentum: str) -> None:
    one, two = pair(make_learner, momentum, clip=0.0)
    swap_round(one, two)
    one.step()
    saved = one.save()
    fresh, _ = pair(make_learner, momentum, clip=0.0)
    fresh.load(saved)
    assert fresh.save() == saved and fresh.progress() == one.progress()
    theirs = two.export(Encoding.INT4)
    found = []
    for mixer in (one, fresh):
        reports = [mixer.step() for _ in range(3)]
        mine = mixer.export(Encoding.INT4)
        mixer.mix(mine, theirs, Encoding.INT4, 0.5)
        found.append((reports, mine, [mixer.step() for _ in range(2)], mixer.export(Encoding.FLOAT32)))
    assert found[0] == found[1]


def test_a_newcomer_takes_over_an_adapter(make_learner: Make) -> None:
    one, two = pair(make_learner, "local")
    for _ in range(5):
        one.step()
    two.step()
    theirs = one.export(Encoding.FLOAT16)
    two.adopt(theirs, Encoding.FLOAT16, 9)
    assert two.export(Encoding.FLOAT16) == theirs
    assert two.progress().mixes == 9
    for name, array in two.learner.values().items():
        np.testing.assert_allclose(array, one.learner.values()[name], atol=1e-3)
    assert two.step().loss > 0.0
