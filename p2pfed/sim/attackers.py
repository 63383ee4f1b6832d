"""Nodes that send something else than what they learnt. They keep the protocol: whoever breaks it is dropped anyway.

sign-flip: the difference to the start, turned round and `attack_scale` times as long; noise: normal values of
that deviation on top of its own; stale: the adapter it began with, for ever; settled: noise again, and the claim to be
long settled with many mixes, which makes newcomers adopt it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from p2pfed.core.messages import Message, SwapAccept, SwapOffer
from p2pfed.ports import Encoding, MixReport, Progress, StepReport
from p2pfed.sim.mixers import SimMixer

ATTACKS = ("sign-flip", "noise", "stale", "settled")
CLAIMED_MIXES = 1_000_000


class Attacker:
    """A `SimMixer` around an honest one."""

    def __init__(self, mixer: SimMixer, attack: str, scale: float, rng: random.Random) -> None:
        self._mixer = mixer
        self._attack = attack
        self._scale = scale
        self._rng = rng
        self._first = list(mixer.values)

    @property
    def values(self) -> Sequence[float]:
        return self._mixer.values

    @property
    def start(self) -> Sequence[float]:
        return self._mixer.start

    def export(self, encoding: Encoding) -> bytes:
        return self._mixer.export_of(self._told(), encoding)

    def export_of(self, values: Sequence[float], encoding: Encoding) -> bytes:
        return self._mixer.export_of(values, encoding)

    def _told(self) -> list[float]:
        match self._attack:
            case "sign-flip":
                pairs = zip(self._mixer.values, self._mixer.start, strict=True)
                return [start - self._scale * (value - start) for value, start in pairs]
            case "stale":
                return self._first
        return [value + self._rng.gauss(0.0, self._scale) for value in self._mixer.values]

    def twist(self, message: Message) -> Message:
        """What it says of itself in place of the truth."""
        if self._attack != "settled" or not isinstance(message, SwapOffer | SwapAccept):
            return message
        return replace(
            message,
            version=replace(message.version, mixes=CLAIMED_MIXES),
            terms=replace(message.terms, settled=True),
        )

    def progress(self) -> Progress:
        return self._mixer.progress()

    def fingerprint(self) -> Mapping[str, str]:
        return self._mixer.fingerprint()

    def payload_bytes(self, encoding: Encoding) -> int:
        return self._mixer.payload_bytes(encoding)

    def step(self) -> StepReport:
        return self._mixer.step()

    def admit(self, payload: bytes, encoding: Encoding) -> None:
        self._mixer.admit(payload, encoding)

    def mix(self, own: bytes, theirs: bytes, encoding: Encoding, weight: float) -> MixReport:
        """For itself it mixes honestly, or it would run away from those it wants to mislead."""
        return self._mixer.mix(self._mixer.export(encoding), theirs, encoding, weight)

    def adopt(self, theirs: bytes, encoding: Encoding, mixes: int) -> MixReport:
        return self._mixer.adopt(theirs, encoding, mixes)

    def save(self) -> bytes:
        return self._mixer.save()

    def load(self, checkpoint: bytes) -> None:
        self._mixer.load(checkpoint)
