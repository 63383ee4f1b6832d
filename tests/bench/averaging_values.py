"""What every process of the bench averages, and how far it still is from the mean.

A process draws its own vector from its number. The parent leaves the mean in a file; a process compares with it
in few places while it is timed, and in all of them afterwards.
"""

from pathlib import Path

import numpy

VALUES_SEED = 20261123
PLACES = 100_003
"""About so many values are compared after each step: the distance to 0.3 %, in less than a millisecond."""


def start_values(peer: int, size: int) -> numpy.ndarray:
    return numpy.random.default_rng((VALUES_SEED, peer)).standard_normal(size, numpy.float32)


def write_mean(path: Path, peers: int, size: int) -> None:
    total = numpy.zeros(size, numpy.float64)
    for peer in range(peers):
        total += start_values(peer, size)
    numpy.save(path, (total / peers).astype(numpy.float32))


class Yardstick:
    """Distance to the mean, relative to that of the start: 1.0 at first, 0.01 is the aim."""

    def __init__(self, mean_path: Path, start: numpy.ndarray) -> None:
        self._path = mean_path
        mean = self._mean()
        self._stride = max(1, start.size // PLACES) | 1  # odd, so that no block of a quantiser hides a place
        self._places = mean[:: self._stride].copy()
        self._begin = float(numpy.linalg.norm(start[:: self._stride] - self._places))
        self._begin_exact = float(numpy.linalg.norm(start - mean))

    def quick(self, values: numpy.ndarray) -> float:
        return float(numpy.linalg.norm(values[:: self._stride] - self._places)) / self._begin

    def exact(self, values: numpy.ndarray) -> float:
        return float(numpy.linalg.norm(values - self._mean())) / self._begin_exact

    def _mean(self) -> numpy.ndarray:
        mean: numpy.ndarray = numpy.load(self._path, mmap_mode="r")
        return mean
