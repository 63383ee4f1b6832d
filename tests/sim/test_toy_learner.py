"""The toy learner keeps the contract of ports.Learner."""

import struct

import pytest

from p2pfed.errors import ConfigError, LearnerError, RemoteError
from p2pfed.ports import Learner
from p2pfed.sim.learner import ToyMixer


def test_it_is_a_learner_that_learns() -> None:
    learner: Learner = ToyMixer([0.0, 4.0], [1.0, 1.0], 0.5)
    losses = [learner.step().loss for _ in range(8)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.01 * losses[0]
    assert (learner.progress().steps, learner.progress().examples) == (8, 16)


def test_without_an_optimum_steps_change_nothing() -> None:
    learner = ToyMixer([0.0, 4.0])
    before = learner.export()
    learner.step()
    assert learner.export() == before and learner.progress().steps == 1


@pytest.mark.parametrize(("encoding", "size"), [("float64", 16), ("float32", 8)])
def test_export_admit_and_mix(encoding: str, size: int) -> None:
    one, other = ToyMixer([0.0, 4.0], encoding=encoding), ToyMixer([3.0, 0.0], encoding=encoding)
    payload = other.export()
    assert len(payload) == one.adapter_bytes() == size
    one.admit(payload)
    report = one.mix(payload, 0.5)
    assert one.values == [1.5, 2.0] and report.distance == 5.0 and report.norm == 2.5


@pytest.mark.parametrize("payload", [b"", bytes(15), struct.pack("<2d", 1.0, float("nan"))])
def test_bad_payloads_are_the_peers_fault(payload: bytes) -> None:
    with pytest.raises(RemoteError):
        ToyMixer([0.0, 4.0]).admit(payload)


def test_save_and_load() -> None:
    learner = ToyMixer([0.0, 4.0], [1.0, 1.0])
    learner.step()
    again = ToyMixer([9.0, 9.0])
    again.load(learner.save())
    assert again.values == learner.values and again.progress() == learner.progress()
    with pytest.raises(LearnerError):
        again.load(b"short")
    with pytest.raises(ConfigError):
        ToyMixer([0.0], encoding="int4")
