"""The toy keeps the contract of ports.Mixer, and sends what it mixes with."""

import struct

import pytest

from p2pfed.errors import LearnerError, RemoteError
from p2pfed.ports import Encoding, Mixer
from p2pfed.sim.learner import ToyMixer

SIZES = {Encoding.FLOAT32: 8, Encoding.FLOAT16: 4, Encoding.INT8: 6, Encoding.INT4: 6}


def test_it_is_a_mixer_that_learns() -> None:
    mixer: Mixer = ToyMixer([0.0, 4.0], [1.0, 1.0], 0.5)
    losses = [mixer.step().loss for _ in range(8)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.01 * losses[0]
    assert (mixer.progress().steps, mixer.progress().examples, mixer.progress().mixes) == (8, 16, 0)


def test_without_an_optimum_steps_change_nothing() -> None:
    mixer = ToyMixer([0.0, 4.0])
    before = mixer.export(Encoding.FLOAT32)
    mixer.step()
    assert mixer.export(Encoding.FLOAT32) == before and mixer.progress().steps == 1


@pytest.mark.parametrize("encoding", Encoding)
def test_a_pair_keeps_its_sum_whatever_the_encoding_loses(encoding: Encoding) -> None:
    one, other = ToyMixer([0.1, 4.3]), ToyMixer([3.2, -0.7])
    sent = [mixer.export(encoding) for mixer in (one, other)]
    assert len(sent[0]) == one.payload_bytes(encoding) == SIZES[encoding]
    one.admit(sent[1], encoding)
    report = one.mix(sent[0], sent[1], encoding, 0.5)
    other.mix(sent[1], sent[0], encoding, 0.5)
    assert [a + b for a, b in zip(one.values, other.values, strict=True)] == pytest.approx([3.3, 3.6], abs=1e-12)
    assert report.distance == pytest.approx(5.88, rel=0.1) and one.progress().mixes == 1


def test_who_adopts_has_the_others_values_and_count() -> None:
    one, other = ToyMixer([0.0, 4.0]), ToyMixer([3.0, 0.0])
    assert one.adopt(other.export(Encoding.FLOAT32), Encoding.FLOAT32, 9).distance == 5.0
    assert one.values == other.values and one.progress().mixes == 9


@pytest.mark.parametrize("payload", [b"", bytes(7), struct.pack("<2f", 1.0, float("nan"))])
def test_bad_payloads_are_the_peers_fault(payload: bytes) -> None:
    with pytest.raises(RemoteError):
        ToyMixer([0.0, 4.0]).admit(payload, Encoding.FLOAT32)


def test_save_and_load() -> None:
    mixer = ToyMixer([0.0, 4.0], [1.0, 1.0])
    mixer.step()
    again = ToyMixer([9.0, 9.0])
    again.load(mixer.save())
    assert again.values == mixer.values and again.progress() == mixer.progress()
    with pytest.raises(LearnerError):
        again.load(b"short")
