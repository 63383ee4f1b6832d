"""The gossip rule's properties, on a learner of a few tensors that walks at random."""

import itertools
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.config import GossipConfig
from p2pfed.errors import ConfigError, ExitCode, LearnerError, RemoteError
from p2pfed.mixer import CHECKPOINT_MAGIC, FIRST, AdapterMixer, norm_of
from p2pfed.ports import Encoding, MixReport, Progress, StepReport
from p2pfed.wire.tensors import pack_tensors, unpack_tensors
from tests.fakes import VectorLearner

Named = dict[str, numpy.ndarray]
SHAPES: Mapping[str, tuple[int, ...]] = {"b": (70,), "a": (3, 5), "c": (2, 1, 64), "d": ()}
ROUNDING = 2.0**-24
"""Half a unit in the last place of float32, relative: what one addition may be off by."""
ENCODINGS = st.sampled_from(list(Encoding))
SEEDS = st.integers(0, 2**32 - 1)


class Walker:
    """Each step adds `rate` * noise; the first moment is the last noise. Has what every momentum asks for."""

    def __init__(
        self, seed: int = 0, *, rate: float = 0.01, spread: float = 0.0, shapes: Mapping[str, tuple[int, ...]] = SHAPES
    ) -> None:
        self._draw = numpy.random.default_rng(seed)
        common = numpy.random.default_rng(1)
        self._start: Named = {name: self._normal(common, shapes[name]) for name in sorted(shapes)}
        self.now: Named = {
            name: numpy.asarray(array + numpy.float32(spread) * self._normal(self._draw, array.shape))
            for name, array in self._start.items()
        }
        self.moment: Named = {name: numpy.zeros_like(array) for name, array in self._start.items()}
        self.rate = numpy.float32(rate)
        self.steps = 0
        self.steered: list[Named] = []
        self._names = list(shapes)

    @staticmethod
    def _normal(rng: numpy.random.Generator, shape: tuple[int, ...]) -> numpy.ndarray:
        return numpy.asarray(rng.standard_normal(shape, numpy.float32))

    def progress(self) -> Progress:
        return Progress(self.steps, 3 * self.steps)

    def fingerprint(self) -> Mapping[str, str]:
        return {"learner": "walker"}

    def step(self) -> StepReport:
        for name in sorted(self.now):
            noise = self._normal(self._draw, self.now[name].shape)
            self.moment[name] = numpy.asarray(numpy.float32(0.9) * self.moment[name] + noise)
            self.now[name] = numpy.asarray(self.now[name] - self.rate * self.moment[name])
        self.steps += 1
        return StepReport(1.0, 3, 30)

    def start(self) -> Named:
        return {name: self._start[name] for name in self._names}

    def values(self) -> Named:
        return {name: self.now[name].copy() for name in self._names}

    def move(self, by: Mapping[str, numpy.ndarray]) -> None:
        self.now = {name: numpy.asarray(array + by[name]) for name, array in self.now.items()}

    def first_moment(self) -> Named:
        return {name: self.moment[name].copy() for name in self._names}

    def move_first_moment(self, by: Mapping[str, numpy.ndarray]) -> None:
        self.moment = {name: numpy.asarray(array + by[name]) for name, array in self.moment.items()}

    def steer(self, moved: Mapping[str, numpy.ndarray]) -> None:
        self.steered.append({name: array.copy() for name, array in moved.items()})
        self.moment = {name: numpy.asarray(array - moved[name]) / 2 for name, array in self.moment.items()}

    def save(self) -> bytes:
        state = json.dumps(self._draw.bit_generator.state).encode()
        both = self.now | {FIRST + name: array for name, array in self.moment.items()}
        return struct.pack(">QI", self.steps, len(state)) + state + pack_tensors(both, Encoding.FLOAT32)

    def load(self, checkpoint: bytes) -> None:
        self.steps, length = struct.unpack(">QI", checkpoint[:12])
        self._draw.bit_generator.state = json.loads(checkpoint[12 : 12 + length])
        shapes = {name: array.shape for name, array in self._start.items()}
        both = shapes | {FIRST + name: shape for name, shape in shapes.items()}
        read = unpack_tensors(checkpoint[12 + length :], both, Encoding.FLOAT32)
        self.now = {name: read[name].copy() for name in shapes}
        self.moment = {name: read[FIRST + name].copy() for name in shapes}


def walker(seed: int, spread: float = 1.0, rate: float = 0.01, **gossip: object) -> tuple[Walker, AdapterMixer]:
    learner = Walker(seed, rate=rate, spread=spread)
    return learner, AdapterMixer(learner, GossipConfig(**gossip))  # type: ignore[arg-type]


def walk(mixer: AdapterMixer, steps: int) -> None:
    for _ in range(steps):
        mixer.step()


def swap(
    one: AdapterMixer, two: AdapterMixer, encoding: Encoding, weights: tuple[float, float] = (0.5, 0.5)
) -> tuple[MixReport, MixReport]:
    mine, theirs = one.export(encoding), two.export(encoding)
    return one.mix(mine, theirs, encoding, weights[0]), two.mix(theirs, mine, encoding, weights[1])


def total(learners: Sequence[Walker], weights: Sequence[float] | None = None) -> Named:
    """Weighted sum in float64."""
    weights = weights if weights is not None else [1.0] * len(learners)
    return {
        name: sum(weight * each.now[name].astype(float) for weight, each in zip(weights, learners, strict=True))
        for name in SHAPES
    }


def spread_of(learners: Sequence[Walker]) -> float:
    """Sum over nodes of the squared distance to their mean."""
    stacked = numpy.stack(
        [numpy.concatenate([each.now[name].ravel() for name in sorted(each.now)]) for each in learners]
    )
    wide = stacked.astype(float)
    return float(((wide - wide.mean(axis=0)) ** 2).sum())


@given(ENCODINGS, SEEDS, st.integers(0, 5), st.integers(0, 5))
def test_an_unclipped_pair_keeps_its_sum(encoding: Encoding, seed: int, first: int, second: int) -> None:
    """However many steps either made since its version was sent: the late difference is the same on both sides."""
    (one, mixer), (two, other) = walker(seed, clip=0.0), walker(seed + 1, clip=0.0)
    mine, theirs = mixer.export(encoding), other.export(encoding)
    walk(mixer, first)
    walk(other, second)
    before = total((one, two))
    assert mixer.mix(mine, theirs, encoding, 0.5).kept == 1.0
    other.mix(theirs, mine, encoding, 0.5)
    for name, after in total((one, two)).items():
        bound = ROUNDING * (abs(one.now[name].astype(float)) + abs(two.now[name].astype(float)))
        assert (abs(after - before[name]) <= bound * (1 + 1e-6)).all()


@given(ENCODINGS, SEEDS, st.integers(1, 10_000), st.integers(1, 10_000))
def test_shares_of_weight_keep_the_weighted_sum(encoding: Encoding, seed: int, rows: int, others_rows: int) -> None:
    (one, mixer), (two, other) = walker(seed, clip=0.0), walker(seed + 1, clip=0.0)
    weights, share = (rows, others_rows), (others_rows / (rows + others_rows), rows / (rows + others_rows))
    before, was = total((one, two), weights), [one.values(), two.values()]
    swap(mixer, other, encoding, share)
    for name, after in total((one, two), weights).items():
        bound = sum(
            weight * ROUNDING * (abs(each.now[name].astype(float)) + 2 * abs(each.now[name].astype(float) - then[name]))
            for weight, each, then in zip(weights, (one, two), was, strict=True)
        )
        assert (abs(after - before[name]) <= 1.01 * bound).all()


def test_a_swap_contracts_the_spread_as_theory_says() -> None:
    """Averaged over all pairs, one swap leaves 1 - 1/(N-1) of the sum of squares."""
    nodes = 7
    ratios = []
    for first, second in itertools.combinations(range(nodes), 2):
        learners, mixers = zip(*(walker(seed, clip=0.0) for seed in range(nodes)), strict=True)
        before = spread_of(learners)
        swap(mixers[first], mixers[second], Encoding.FLOAT32)
        ratios.append(spread_of(learners) / before)
    assert sum(ratios) / len(ratios) == pytest.approx(1 - 1 / (nodes - 1), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_spread_of_many_swaps_shrinks_at_least_so_fast(seed: int) -> None:
    nodes, swaps = 8, 200
    learners, mixers = zip(*(walker(seed * nodes + place, clip=0.0) for place in range(nodes)), strict=True)
    rng, before = numpy.random.default_rng(seed), spread_of(learners)
    for _ in range(swaps):
        first, second = rng.choice(nodes, 2, replace=False)
        swap(mixers[first], mixers[second], Encoding.FLOAT32)
    assert spread_of(learners) <= before * (1 - 1 / (nodes - 1)) ** swaps


@pytest.mark.parametrize("momentum", ["local", "gossip"])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_neither_the_order_of_names_nor_of_peers_matters(encoding: Encoding, momentum: str) -> None:
    def run(backwards: bool) -> list[Named]:
        pair = []
        for seed in (3, 4):
            learner = Walker(seed, spread=1.0)
            learner._names = sorted(SHAPES, reverse=backwards)
            pair.append((learner, AdapterMixer(learner, GossipConfig(momentum=momentum))))
        for _ in range(3):
            for _, mixer in pair:
                walk(mixer, 4)
            order = pair[::-1] if backwards else pair
            swap(order[0][1], order[1][1], encoding)
        return [learner.now | {FIRST + name: array for name, array in learner.moment.items()} for learner, _ in pair]

    for forth, back in zip(run(False), run(True), strict=True):
        assert all(numpy.array_equal(forth[name], back[name]) for name in forth)


@pytest.mark.slow
def test_ten_thousand_swaps_do_not_drift() -> None:
    """int4, eight nodes that learn: what the mean gains is what they learnt, and they stay within a step of int4."""
    nodes, swaps, still, size = 8, 10_000, 1_000, 64
    learners = [Walker(seed, spread=1.0, rate=0.001, shapes={"v": (size,)}) for seed in range(nodes)]
    mixers = [AdapterMixer(learner, GossipConfig(clip=0.0)) for learner in learners]

    def stacked() -> numpy.ndarray:
        return numpy.stack([learner.now["v"].astype(float) for learner in learners])

    wanted, largest = stacked().mean(axis=0), 0.0
    rng = numpy.random.default_rng(5)
    for done in range(swaps):
        first, second = rng.choice(nodes, 2, replace=False)
        if done < swaps - still:
            before = learners[first].now["v"].astype(float)
            mixers[first].step()
            wanted += (learners[first].now["v"].astype(float) - before) / nodes
        swap(mixers[first], mixers[second], Encoding.INT4)
        largest = max(largest, abs(learners[first].now["v"]).max(), abs(learners[second].now["v"]).max())
    after = stacked()
    drift = abs(after.mean(axis=0) - wanted).max()
    # Each swap adds twice, off by at most ROUNDING of a value: six deviations of a random walk of so many, in the mean.
    assert drift < 6 * math.sqrt(2 * swaps) * ROUNDING * largest / nodes < 1e-4
    step = abs(after - learners[0]._start["v"]).max() / 7
    assert abs(after - after.mean(axis=0)).max() <= step


@given(SEEDS, st.floats(0.01, 100.0), st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.floats(0.0, 1.0), ENCODINGS)
def test_no_mix_moves_farther_than_the_radius(
    seed: int, spread: float, clip: float, weight: float, encoding: Encoding
) -> None:
    (one, mixer), (_, other) = walker(seed, 0.0, clip=clip), walker(seed + 1, spread)
    start = one.values()
    walk(mixer, 4)
    mine, theirs = mixer.export(encoding), other.export(encoding)
    now, sent = one.values(), unpack_tensors(mine, SHAPES, encoding)
    relative = encoding in (Encoding.INT4, Encoding.INT8)
    error = norm_of(sent[name] - (now[name] - (start[name] if relative else 0)) for name in SHAPES)
    radius = clip * math.hypot(norm_of(now[name] - start[name] for name in SHAPES), error)
    report = mixer.mix(mine, theirs, encoding, weight)
    moved = norm_of(one.now[name].astype(float) - now[name] for name in SHAPES)
    assert moved <= weight * radius * (1 + 1e-4) + 1e-5
    assert report.kept == pytest.approx(min(1.0, radius / report.distance), rel=1e-5)
    assert moved == pytest.approx(weight * report.kept * report.distance, rel=1e-3, abs=1e-5)


def test_the_radius_is_of_own_steps_alone() -> None:
    """Mixes and an adoption in the middle of a round do not make it longer, another encoding not shorter."""
    (one, mixer), (_, other) = walker(1, 0.0, clip=2.0), walker(2, 50.0)
    stray = {name: numpy.zeros(shape) for name, shape in SHAPES.items()}
    theirs = other.export(Encoding.FLOAT32)
    for _ in range(2):
        before = one.values()
        walk(mixer, 2)
        stray = {name: array + (one.now[name].astype(float) - before[name]) for name, array in stray.items()}
        mixer.mix(mixer.export(Encoding.FLOAT32), theirs, Encoding.FLOAT32, 0.5)
        mixer.adopt(theirs, Encoding.FLOAT32, 3)
    mine = mixer.export(Encoding.INT4)
    mixer.export(Encoding.FLOAT16)
    far = walker(3, 500.0)[1].export(Encoding.INT4)
    report = mixer.mix(mine, far, Encoding.INT4, 0.5)
    sent = unpack_tensors(mine, SHAPES, Encoding.INT4)
    before = {name: array - one.start()[name] for name, array in other.learner.values().items()}
    error = norm_of(sent[name] - before[name] for name in SHAPES)
    assert error > 1.0
    assert report.kept * report.distance == pytest.approx(2 * math.hypot(norm_of(stray.values()), error), rel=1e-3)


def test_nothing_is_clipped_before_the_first_round_or_after_one_that_stood_still() -> None:
    (_, mixer), (_, other) = walker(1, 0.0), walker(2, 50.0)
    theirs = other.export(Encoding.INT4)
    walk(mixer, 3)
    assert mixer.mix(mixer.export(Encoding.INT4), theirs, Encoding.INT4, 0.1).kept == 1.0
    walk(mixer, 1)
    assert mixer.mix(mixer.export(Encoding.INT4), theirs, Encoding.INT4, 0.1).kept < 0.1
    _, still = walker(3, 0.0, rate=0.0)
    walk(still, 4)
    assert still.mix(still.export(Encoding.INT4), theirs, Encoding.INT4, 0.1).kept == 1.0


def test_without_steps_the_last_radius_stays() -> None:
    (_, mixer), (_, other) = walker(1, 0.0), walker(2, 50.0)
    walk(mixer, 4)
    theirs = other.export(Encoding.FLOAT32)
    lengths = []
    for _ in range(3):
        report = mixer.mix(mixer.export(Encoding.FLOAT32), theirs, Encoding.FLOAT32, 0.1)
        lengths.append(report.kept * report.distance)
    assert lengths == pytest.approx([lengths[0]] * 3)


@given(ENCODINGS, SEEDS, st.floats(1e-3, 1e3))
@settings(max_examples=50)
def test_adopting_gives_exactly_what_was_sent(encoding: Encoding, seed: int, spread: float) -> None:
    (one, mixer), (_, other) = walker(seed, 0.01, momentum="quasi-global"), walker(seed + 1, spread)
    walk(mixer, 2)
    moments = one.first_moment()
    theirs = other.export(encoding)
    report = mixer.adopt(theirs, encoding, 17)
    sent = unpack_tensors(theirs, SHAPES, encoding)
    for name, array in one.now.items():
        start = one.start()[name] if encoding in (Encoding.INT4, Encoding.INT8) else numpy.float32(0.0)
        assert numpy.array_equal(array, sent[name] + start)
        assert numpy.array_equal(one.moment[name], moments[name])
    assert mixer.progress() == Progress(2, 6, 17)
    assert report.norm == pytest.approx(norm_of(array - one.start()[name] for name, array in one.now.items()))
    again = mixer.adopt(theirs, encoding, 18)
    assert again.distance == 0.0 and again.norm == report.norm


def test_reports_are_of_the_versions_and_of_what_came_of_them() -> None:
    (one, mixer), (two, other) = walker(1), walker(2)
    mine, theirs = mixer.export(Encoding.FLOAT32), other.export(Encoding.FLOAT32)
    distance = norm_of(one.now[name].astype(float) - two.now[name] for name in SHAPES)
    walk(mixer, 3)
    report = mixer.mix(mine, theirs, Encoding.FLOAT32, 0.5)
    assert report.distance == pytest.approx(distance)
    assert report.norm == pytest.approx(norm_of(one.now[name] - one.start()[name] for name in SHAPES))
    assert mixer.progress() == Progress(3, 9, 1)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_gossiped_moments_keep_their_sum_and_share_the_clipping(encoding: Encoding) -> None:
    (one, mixer), (two, other) = walker(1, 0.0, momentum="gossip"), walker(2, 30.0, momentum="gossip")
    for each in (mixer, other):
        walk(each, 3)
    before = [one.first_moment(), two.first_moment()]
    mine, theirs = mixer.export(encoding), other.export(encoding)
    assert len(mine) == mixer.payload_bytes(encoding) > 1.9 * walker(1)[1].payload_bytes(encoding)
    shapes = dict(SHAPES) | {FIRST + name: shape for name, shape in SHAPES.items()}
    sent = [unpack_tensors(each, shapes, encoding) for each in (mine, theirs)]
    mixer.mix(mine, theirs, encoding, 0.5)
    other.mix(theirs, mine, encoding, 0.5)
    for name in SHAPES:
        by = 0.5 * (sent[1][FIRST + name] - sent[0][FIRST + name])
        numpy.testing.assert_allclose(one.moment[name], before[0][name] + by, rtol=1e-6, atol=1e-7)
        numpy.testing.assert_allclose(two.moment[name], before[1][name] - by, rtol=1e-6, atol=1e-7)
    walk(mixer, 1)
    mine, was = mixer.export(encoding), one.first_moment()
    kept = mixer.mix(mine, theirs, encoding, 0.5).kept
    assert kept < 0.1
    sent[0] = unpack_tensors(mine, shapes, encoding)
    for name in SHAPES:
        by = 0.5 * kept * (sent[1][FIRST + name] - sent[0][FIRST + name])
        numpy.testing.assert_allclose(one.moment[name], was[name] + by, rtol=1e-5, atol=1e-6)


def test_quasi_global_momentum_hears_of_every_move_once() -> None:
    """Rounds without a mix count in the next one; a mix in the middle of a round waits; adoption is no move."""
    (one, mixer), (_, other) = walker(1, 0.0, momentum="quasi-global", clip=0.0), walker(2)
    begin, theirs = one.values(), other.export(Encoding.FLOAT32)
    for steps, told in ((3, 0), (1, 1), (2, 1), (7, 2)):
        walk(mixer, steps)
        mixer.mix(mixer.export(Encoding.FLOAT32), theirs, Encoding.FLOAT32, 0.25)
        assert len(one.steered) == told
    for name, array in one.now.items():
        moved = sum(each[name].astype(float) for each in one.steered)
        numpy.testing.assert_allclose(moved, array.astype(float) - begin[name], atol=1e-5)
    walk(mixer, 4)
    before = one.values()
    mixer.adopt(theirs, Encoding.FLOAT32, 1)
    mixer.mix(theirs, theirs, Encoding.FLOAT32, 0.5)
    assert len(one.steered) == 3
    assert norm_of(one.steered[2].values()) < 0.5 * norm_of(one.now[name] - before[name] for name in SHAPES)


@pytest.mark.parametrize("momentum", ["local", "quasi-global", "gossip"])
def test_a_checkpoint_resumes_bit_for_bit(momentum: str) -> None:
    """In the middle of a round: what follows, steps, mixes and versions, is the same."""

    def follow(learner: Walker, mixer: AdapterMixer) -> Iterator[object]:
        for seed in (5, 6):
            walk(mixer, 2)
            mine = mixer.export(Encoding.INT4)
            yield mine
            _, other = walker(seed, momentum=momentum)
            yield mixer.mix(mine, other.export(Encoding.INT4), Encoding.INT4, 0.5)
            yield [array.tobytes() for array in (*learner.now.values(), *learner.moment.values())]
            yield mixer.progress()

    learner, mixer = walker(1, momentum=momentum, clip=0.0)
    walk(mixer, 4)
    swap(mixer, walker(2, momentum=momentum, clip=0.0)[1], Encoding.INT4)
    walk(mixer, 3)
    saved = mixer.save()
    fresh, again = walker(9, momentum=momentum, clip=0.0)
    again.load(saved)
    assert again.progress() == mixer.progress() == Progress(7, 21, 1)
    assert again.save() == saved
    assert list(follow(learner, mixer)) == list(follow(fresh, again))


def test_a_checkpoint_keeps_the_radius() -> None:
    _, mixer = walker(1, 0.0)
    walk(mixer, 4)
    mine, theirs = mixer.export(Encoding.INT4), walker(2, 50.0)[1].export(Encoding.INT4)
    walk(mixer, 1)
    _, fresh = walker(9, 0.0)
    fresh.load(mixer.save())
    reports = [each.mix(mine, theirs, Encoding.INT4, 0.5) for each in (mixer, fresh)]
    assert reports[0] == reports[1] and reports[0].kept < 0.1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b" ",
        lambda data: b"other" + data[5:],
        lambda data: data[: len(CHECKPOINT_MAGIC)] + b"\xff" * 4 + data[len(CHECKPOINT_MAGIC) + 4 :],
        lambda data: data.replace(b'"mixes": 0', b'"mixes": x'),
        lambda data: data.replace(b'"mixes": 0', b'"mixes":-1'),
        lambda data: data.replace(b'"step": null', b'"step": -1.0'),
        lambda data: data.replace(b'"step": null', b'"step": "ab"'),
        lambda data: data[:12] + b"[" * (len(data) - 12),
        lambda data: data[:-4] + b"\xff" * 4,
    ],
)
def test_a_damaged_checkpoint_changes_nothing(spoil) -> None:  # type: ignore[no-untyped-def]
    learner, mixer = walker(1, momentum="quasi-global")
    saved = mixer.save()
    walk(mixer, 1)
    before = learner.values()
    with pytest.raises(LearnerError) as caught:
        mixer.load(spoil(saved))
    assert caught.value.exit_code is ExitCode.CHECKPOINT
    assert all(numpy.array_equal(array, before[name]) for name, array in learner.now.items())
    mixer.load(saved)
    assert mixer.progress() == Progress(0, 0, 0)


def test_peers_with_another_start_or_shape_differ_in_the_fingerprint() -> None:
    one, two = walker(1)[1].fingerprint(), walker(2)[1].fingerprint()
    assert one == two and one["learner"] == "walker"
    learner = Walker(1)
    learner._start["a"] = learner._start["a"] + numpy.float32(1e-6)
    other = AdapterMixer(learner, GossipConfig()).fingerprint()
    assert other["initial"] != one["initial"] and other["adapter"] == one["adapter"]
    wider = AdapterMixer(Walker(1, shapes=dict(SHAPES) | {"a": (5, 3)}), GossipConfig()).fingerprint()
    assert wider["adapter"] != one["adapter"]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_admit_takes_what_export_gives_and_nothing_else(encoding: Encoding) -> None:
    (_, mixer), (_, other) = walker(1), walker(2)
    payload = other.export(encoding)
    assert len(payload) == mixer.payload_bytes(encoding)
    mixer.admit(payload, encoding)
    wrong = Encoding.INT8 if encoding is Encoding.INT4 else Encoding.INT4
    with pytest.raises(RemoteError):
        mixer.admit(payload, wrong)
    with pytest.raises(RemoteError):
        mixer.admit(payload[:-1], encoding)
    with pytest.raises(RemoteError):
        walker(1, momentum="gossip")[1].admit(payload, encoding)


def test_a_learner_without_momentum_takes_part_in_none() -> None:
    AdapterMixer(VectorLearner(1.0), GossipConfig())
    for momentum, method in (("quasi-global", "steer"), ("gossip", "first_moment")):
        with pytest.raises(ConfigError, match=f"'{momentum}' needs a learner with the method {method}"):
            AdapterMixer(VectorLearner(1.0), GossipConfig(momentum=momentum))
    with pytest.raises(ConfigError, match="'heavy', expected local, quasi-global, gossip"):
        AdapterMixer(VectorLearner(1.0), GossipConfig(momentum="heavy"))
    with pytest.raises(ConfigError, match="first moment"):
        AdapterMixer(Walker(shapes={"a": (2,), "first.a": (2,)}), GossipConfig(momentum="gossip"))


def test_a_learner_that_deals_in_something_else_is_told() -> None:
    wide, renamed = Walker(1), Walker(1)
    wide.now["a"] = wide.now["a"].astype(float)
    with pytest.raises(LearnerError, match="tensor a has float64"):
        AdapterMixer(wide, GossipConfig())
    renamed._names = ["a"]
    renamed.values = lambda: {"b": renamed.now["b"]}  # type: ignore[method-assign]
    with pytest.raises(LearnerError, match="start values"):
        AdapterMixer(renamed, GossipConfig())


def test_values_that_are_not_finite_are_not_sent() -> None:
    learner, mixer = walker(1)
    learner.now["a"][0, 0] = numpy.nan
    for encoding in Encoding:
        with pytest.raises(LearnerError, match="tensor a") as caught:
            mixer.export(encoding)
        assert caught.value.exit_code is ExitCode.TRAINING
