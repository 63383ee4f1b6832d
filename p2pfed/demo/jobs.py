"""Measuring processes, at most two at a time: on two cores a third would only make all three slower."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2pfed.demo.measure import JUDGED, LOADED, STEPPED, Job, write_job
from p2pfed.demo.measurement import Kind, Measurement, load_measurement
from p2pfed.demo.processes import Child, Family
from p2pfed.journal import read_journal

AT_ONCE = 2
MODULE = "p2pfed.demo.measure"
JUDGE_UNITS = 0.7
"""Judging one row (loss, direct verdict, written verdict) next to training on one, in time; measured."""
LOAD_UNITS = 10.0
"""Starting a process with torch and the model, in rows trained."""


@dataclass(slots=True)
class Pool:
    """Runs what was added, in order."""

    family: Family
    folder: Path
    batch_rows: int
    waiting: list[Job] = field(default_factory=list)
    running: list[tuple[Job, Child]] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)

    def add(self, jobs: Sequence[Job]) -> None:
        self.waiting += jobs

    def poll(self) -> None:
        """Start what there is room for. Raises LocalError where a job failed."""
        self.family.check()
        for job, child in list(self.running):
            if not child.running:
                self.running.remove((job, child))
                self.done.append(job)
        while self.waiting and len(self.running) < AT_ONCE:
            job = self.waiting.pop(0)
            path = write_job(job, self.folder)
            self.running.append((job, self.family.start(f"measure {job.name}", MODULE, [str(path)])))

    @property
    def over(self) -> bool:
        return not self.waiting and not self.running

    def loaded(self, job: Job) -> bool:
        """The base is converted, checked and in the page cache."""
        return any(entry.kind == LOADED for entry in read_journal(job.progress_path(self.folder)))

    def words(self) -> str:
        return ", ".join(f"{_words(job)} {self.share(job):.0%}" for job, _ in self.running)

    def share(self, job: Job) -> float:
        return self.units_done(job) / job_units(job, self.batch_rows)

    def units_done(self, job: Job) -> float:
        if job in self.done:
            return job_units(job, self.batch_rows)
        units = 0.0
        for entry in read_journal(job.progress_path(self.folder)):
            match entry.kind:
                case kind if kind == LOADED:
                    units += LOAD_UNITS
                case kind if kind == STEPPED:
                    units += self.batch_rows
                case kind if kind == JUDGED:
                    units = LOAD_UNITS + _steps(job) * self.batch_rows + int(entry.fields["rows"] or 0) * JUDGE_UNITS
        return units

    def results(self, trades: Sequence[str]) -> tuple[Measurement, ...]:
        """Base, isolated nodes in the order of their trades, consensus."""
        kinds = list(Kind)
        measured = [load_measurement(job.result_path(self.folder)) for job in self.done]

        def place(each: Measurement) -> tuple[int, int]:
            return kinds.index(each.kind), trades.index(each.name) if each.name in trades else 0

        return tuple(sorted(measured, key=place))


def job_units(job: Job, batch_rows: int) -> float:
    return LOAD_UNITS + _steps(job) * batch_rows + job.rows * JUDGE_UNITS


def _steps(job: Job) -> int:
    return job.steps if job.kind is Kind.ISOLATED else 0


def _words(job: Job) -> str:
    return {Kind.BASE: "the base", Kind.ISOLATED: f"{job.name} alone", Kind.CONSENSUS: "the consensus"}[job.kind]
