"""`p2pfed demo` from start to end: the network, the control group, the measurements, the report.

Order: measure the base (which converts it, once) while the network starts; gossip until all have done their steps;
collect the consensus; train each node alone, two at a time, and measure everything on the held-out rows.
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from rich.console import Console

from p2pfed import __version__
from p2pfed.config import NetworkConfig
from p2pfed.config_file import dump_network
from p2pfed.demo.interrupt import Interrupt, Interrupted
from p2pfed.demo.jobs import JUDGE_UNITS, LOAD_UNITS, Pool, job_units
from p2pfed.demo.live import Display, Progress, open_display
from p2pfed.demo.measure import Job
from p2pfed.demo.measurement import Kind, baselines
from p2pfed.demo.multicast import multicast_works
from p2pfed.demo.nodes import Nodes
from p2pfed.demo.page import write_page
from p2pfed.demo.processes import Family, children_cpu_s
from p2pfed.demo.report import Report, print_report, report_json, write_json
from p2pfed.demo.settings import DemoSettings
from p2pfed.demo.trades import load_trades
from p2pfed.errors import ConfigError, ExitCode, LocalError, TransportError
from p2pfed.ports import Encoding
from p2pfed.runtime import one_error
from p2pfed.snapshot.collect import Collection, collect
from p2pfed.snapshot.peft_folder import MANIFEST_FILE, write_peft_folder

OUT = Path("p2pfed-demo")
POLL_S = 0.5
MEMORY_INTERVAL_S = 5.0
"""Counting shared pages walks every page table: 20 ms a process, which would be a tenth of a core at each poll."""
LOAD_S = 300.0
"""For the base to be converted and loaded: 25 s on an idle core."""
SETTLE_SWAPS, SETTLE_S = 4, 15.0
"""After the last step the nodes swap on until each has mixed so often, which brings them together, or for so long."""
COLLECT_S = 60.0
ETA_FROM = 0.05
"""Of the work done before a time left is told: earlier it would only jump."""


@dataclass(slots=True)
class Clock:
    """Wall time of each phase, and how much of all work is done, in rows trained."""

    started_at: float = field(default_factory=time.monotonic)
    phase: str = "starting"
    phase_at: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def enter(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.phase_at
        self.phase, self.phase_at = phase, now

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_at


def run_demo(
    steps: int | None = None,
    out: Path | None = None,
    keep: bool = False,
    seed: int = 0,
    as_json: bool = False,
    settings: DemoSettings | None = None,
) -> Report:
    """Main thread only. Raises P2pfedError; ExitCode.INTERRUPTED after a signal, with what was kept.

    Progress goes to stdout, or to stderr where the report is printed there as JSON.
    """
    chosen = settings or DemoSettings()
    if steps is not None and steps < 1:
        raise ConfigError(f"--steps {steps}: must be 1 or more", ExitCode.USAGE)
    folder = out or OUT
    _check_out(folder)
    interrupt = Interrupt()
    console = Console(stderr=as_json)
    with interrupt.caught(), _work_folder(keep) as work:
        demo = Demo(chosen, steps or chosen.steps, seed, folder, work, interrupt)
        try:
            with open_display(console) as display:
                report = demo.run(display)
        except Interrupted as error:
            raise Interrupted(f"{error}; every process has ended; {_kept(work, keep, demo)}") from error
    if as_json:
        print(report_json(report))
    else:
        print_report(report, console, (folder / "report.html", folder / "report.json", folder / "adapter"))
        if keep:
            console.print(f"  {work} (the nodes' state)", highlight=False, soft_wrap=True)
    return report


class Demo:
    """One run. `run` may be called once."""

    def __init__(
        self, settings: DemoSettings, steps: int, seed: int, out: Path, work: Path, interrupt: Interrupt
    ) -> None:
        self._settings = settings
        self._steps = steps
        self._seed = seed
        self._out = out
        self._work = work
        self._interrupt = interrupt
        self._clock = Clock()
        self._trades = load_trades(settings.data, settings.trades)
        self._network = settings.network(secrets.token_hex(3), seed)
        self._network_file = work / "network.toml"
        self._measured_at = 0.0
        self.written: list[Path] = []

    def run(self, display: Display) -> Report:
        self._network_file.write_text(dump_network(self._network), encoding="utf-8")
        (self._work / "logs").mkdir()
        (self._work / "jobs").mkdir()
        cpu_before = children_cpu_s() + time.process_time()
        with Family(self._work / "logs") as family:
            self._display = display
            self._family = family
            self._pool = Pool(family, self._work / "jobs", self._settings.training.batch_rows)
            self._nodes = Nodes(family, self._work, self._network_file, self._steps, multicast_works(), self._interrupt)
            self._start()
            self._gossip()
            collection = self._take_consensus()
            self._measure_rest()
        self._clock.enter("writing the report")
        cpu_s = children_cpu_s() + time.process_time() - cpu_before
        report = self._report(collection, cpu_s)
        self._write(report)
        return report

    def _start(self) -> None:
        """The base is measured first: until it is converted nobody else has work."""
        self._clock.enter("preparing the base model")
        base = self._job("base", Kind.BASE)
        self._pool.add([base])
        self._pool.poll()
        self._nodes.start_bootstrap()
        self._until(lambda: self._pool.loaded(base) or self._pool.over, LOAD_S, "the base model was not ready")
        self._nodes.start_nodes(self._trades)

    def _gossip(self) -> None:
        self._clock.enter("training and gossiping")
        self._until(lambda: self._nodes.over and self._pool.over)
        self._clock.enter("swapping on")
        swapped = [node.swaps for node in self._nodes.nodes]
        end = time.monotonic() + SETTLE_S
        self._until(
            lambda: (
                time.monotonic() > end
                or all(
                    node.swaps >= before + SETTLE_SWAPS for node, before in zip(self._nodes.nodes, swapped, strict=True)
                )
            )
        )

    def _take_consensus(self) -> Collection:
        """Over the network, as `p2pfed snapshot take` does, while the control group already trains."""
        self._clock.enter("collecting the consensus")
        self._pool.add([self._job(each.trade, Kind.ISOLATED) for each in self._trades])
        self._pool.poll()
        self._show()
        collection = collect_all(self._network, self._nodes.bootstrap_address, len(self._trades), self._interrupt)
        self._facts = self._nodes.facts()
        self._nodes.stop()
        self._interrupt.check()
        adapter = self._out / "adapter"
        shutil.rmtree(adapter, ignore_errors=True)
        write_peft_folder(self._network, collection, adapter)
        self.written.append(adapter)
        self._pool.add([self._job("consensus", Kind.CONSENSUS, str(adapter))])
        return collection

    def _measure_rest(self) -> None:
        self._clock.enter("training each node alone, measuring")
        self._until(lambda: self._pool.over)

    def _until(self, done: Callable[[], bool], limit_s: float | None = None, words: str = "") -> None:
        """Poll and show until `done`. Raises Interrupted, or LocalError where it takes longer than `limit_s`."""
        end = None if limit_s is None else time.monotonic() + limit_s
        while True:
            self._interrupt.check()
            self._pool.poll()
            self._nodes.poll()
            if time.monotonic() - self._measured_at > MEMORY_INTERVAL_S:
                self._family.measure_memory()
                self._measured_at = time.monotonic()
            self._show()
            if done():
                return
            if end is not None and time.monotonic() > end:
                raise LocalError(f"{words} in {limit_s:g} s", ExitCode.DEMO)
            self._interrupt.pause(POLL_S)

    def _show(self) -> None:
        done, left_s = self._done(), None
        if done > ETA_FROM and self._nodes.nodes:
            left_s = self._clock.elapsed_s * (1.0 - done) / done
        self._display.show(
            Progress(self._clock.phase, done, self._clock.elapsed_s, left_s, self._pool.words()), self._nodes.lines()
        )

    def _done(self) -> float:
        """Share of all work: rows trained, rows judged, processes started."""
        batch = self._settings.training.batch_rows
        count = len(self._trades)
        rows = sum(len(each.held_out_scores) for each in self._trades)
        node_units = LOAD_UNITS + self._steps * batch
        judge_units = LOAD_UNITS + rows * JUDGE_UNITS
        total = count * node_units + count * (node_units + rows * JUDGE_UNITS) + 2 * judge_units
        jobs = [*self._pool.done, *(job for job, _ in self._pool.running)]
        done = sum(min(self._pool.units_done(job), job_units(job, batch)) for job in jobs)
        done += sum((LOAD_UNITS if node.up_at is not None else 0.0) + node.steps * batch for node in self._nodes.nodes)
        return min(done / total, 1.0)

    def _job(self, name: str, kind: Kind, adapter: str = "") -> Job:
        data = {each.trade: str(each.train) for each in self._trades}
        return Job(
            name=name,
            kind=kind,
            network=str(self._network_file),
            steps={Kind.BASE: 0, Kind.ISOLATED: self._steps, Kind.CONSENSUS: self._steps * len(self._trades)}[kind],
            held_out={each.trade: str(each.held_out) for each in self._trades},
            rows=sum(len(each.held_out_scores) for each in self._trades),
            answer_tokens_max=self._settings.answer_tokens_max,
            data=data[name] if kind is Kind.ISOLATED else "",
            adapter=adapter,
        )

    def _report(self, collection: Collection, cpu_s: float) -> Report:
        self._clock.seconds.pop("starting", None)
        return Report(
            version=__version__,
            network=self._network.name,
            network_id=self._network.network_id,
            model=self._network.model.base,
            adapter_bytes=len(collection.payload),
            sent_bytes=_sent_bytes(self._network, collection),
            steps=self._steps,
            seed=self._seed,
            nodes=self._facts,
            discovery=self._nodes.discovery,
            consensus_distance=collection.consensus_distance,
            measurements=self._pool.results([each.trade for each in self._trades]),
            baselines=baselines(self._trades),
            held_out_scores={each.trade: each.held_out_scores for each in self._trades},
            seconds=dict(self._clock.seconds),
            cpu_s=cpu_s,
            memory_max_bytes=self._family.memory_max_bytes,
            adapter_folder=str(self._out / "adapter"),
        )

    def _write(self, report: Report) -> None:
        try:
            write_json(report, self._out / "report.json")
            write_page(report, self._out / "report.html")
        except OSError as error:
            raise LocalError(f"{self._out} can not be written: {error.strerror or error}") from error


def _sent_bytes(network: NetworkConfig, collection: Collection) -> int:
    """Of a version of that adapter in the network's encoding."""
    from p2pfed.wire.tensors import layout_of, payload_size  # numpy: only where a demo has come to its end

    shapes, _ = layout_of(collection.payload)
    return payload_size(shapes, Encoding(network.gossip.encoding))


def collect_all(network: NetworkConfig, bootstrap: str, count: int, interrupt: Interrupt) -> Collection:
    """Raises LocalError where not all `count` nodes could be read, Interrupted after a signal."""
    found: list[Collection] = []

    async def until_interrupted(scope: trio.CancelScope) -> None:
        while interrupt.by is None:  # noqa: ASYNC110  a signal handler sets the flag, it may not touch trio
            await trio.sleep(POLL_S)
        scope.cancel()

    async def collect_or_stop() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_interrupted, nursery.cancel_scope)
            found.append(await collect(network, (bootstrap,), deadline_s=COLLECT_S))
            nursery.cancel_scope.cancel()

    try:
        with one_error():
            trio.run(collect_or_stop)
    except TransportError as error:
        raise LocalError(f"the consensus can not be collected: {error}", ExitCode.DEMO) from error
    interrupt.check()
    if len(found[0].contributions) < count:
        reasons = "; ".join(f"{peer}: {reason}" for peer, reason in found[0].failures.items()) or "not found"
        raise LocalError(f"{len(found[0].contributions)} of {count} nodes could be read ({reasons})", ExitCode.DEMO)
    return found[0]


@contextmanager
def _work_folder(keep: bool) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix="p2pfed-demo-"))
    try:
        yield work
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def _check_out(folder: Path) -> None:
    """Make it, and refuse to remove an adapter folder that is not ours."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"{folder} can not be made: {error.strerror or error}") from error
    adapter = folder / "adapter"
    if adapter.exists() and not (adapter / MANIFEST_FILE).is_file():
        raise LocalError(f"{adapter} exists and is not a snapshot of p2pfed: choose another --out")
    if not os.access(folder, os.W_OK):
        raise LocalError(f"{folder} can not be written")


def _kept(work: Path, keep: bool, demo: Demo) -> str:
    kept = ["the converted base model in the cache"]
    kept += [str(path) for path in demo.written]
    if keep:
        kept.append(f"the nodes' state in {work}")
    return f"kept: {', '.join(kept)}"
