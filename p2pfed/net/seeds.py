"""Peers a person named to be tried first: multiaddrs, /dnsaddr names, and files with one of these a line.

Nothing here dials: entries become peers and addresses for whoever dials (`core.membership`, with its back-off, and the
DHT), and what came of that becomes one sentence. A name is resolved anew, and a file read anew, while no seed is
reached; a file also when it changes. /dns4 and its like are resolved by each dial.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pfed.errors import ConfigError, TransportError
from p2pfed.net.address import DNS_NAME, HOST_KINDS, parse_bootstrap, parse_peer
from p2pfed.ports import PeerId

RESOLVE_S = 12.0
"""For one entry, the names it leads to included."""
RETRY_FIRST_S = 2.0
RETRY_MAX_S = 60.0
"""Between two resolutions of one entry while no seed is reached; doubled each time."""
LOOK_INTERVAL_S = 2.0
"""How soon a change is noticed."""
FILE_BYTES_MAX = 64 * 1024
ADDRESSES_MAX = 64
"""Of one entry."""
NESTED_MAX = 8
"""Names that one name leads to; those lead no further."""
SEEDS_SHOWN = 3
REASON_CHARS_SHOWN = 160

ResolveTxt = Callable[[str], list[str]]
"""TXT records of a name. Blocking; raises TransportError."""


@dataclass(frozen=True, slots=True)
class SeedState:
    """What came of a seed's dials so far."""

    reached: bool = False
    failure: str | None = None
    """Why the last dial failed, or why the peer is refused."""


@dataclass(slots=True)
class Seed:
    """One entry. Exactly one of `fixed`, `host` and `path` says what it is."""

    text: str
    fixed: tuple[PeerId, str] | None = None
    host: str = ""
    wanted: PeerId | None = None
    """Of a /dnsaddr/HOST/p2p/ID: this peer and no other."""
    path: Path | None = None
    found: tuple[tuple[PeerId, str], ...] = ()
    problem: str | None = None
    """Why it could not be resolved or read."""
    stamp: tuple[int, int] = (0, 0)
    """Of the file: time of its last change, and size."""
    retry_s: float = RETRY_FIRST_S
    retry_at: float = field(default=-1.0)


def parse_seed(text: str) -> Seed:
    """What a person wrote. Reads a file that is named. Raises ConfigError."""
    if text.startswith("/") and text.split("/")[1] in (*HOST_KINDS, "dnsaddr"):
        return parse_seed_address(text)
    seed = Seed(text, path=Path(text).expanduser())
    read_file(seed)
    return seed


def parse_seed_address(text: str) -> Seed:
    """What may come from a stranger's name server: never a file. Raises ConfigError."""
    parts = text.split("/")
    if not text.startswith("/dnsaddr/"):
        fixed = parse_bootstrap(text)
        return Seed(text, fixed=fixed, found=(fixed,))
    if len(parts) not in (3, 5) or not DNS_NAME.fullmatch(parts[2]) or (len(parts) == 5 and parts[3] != "p2p"):
        raise ConfigError(f"seed {text!r} is not of the form /dnsaddr/HOST or /dnsaddr/HOST/p2p/ID")
    return Seed(text, host=parts[2], wanted=parse_peer(parts[4]) if len(parts) == 5 else None)


def read_file(seed: Seed) -> list[Seed]:
    """The entries of a seed that is a file; the multiaddrs among them become `found`. Raises ConfigError."""
    assert seed.path is not None
    try:
        with seed.path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        seed.stamp = _stamp(seed.path)
        lines = data.decode().splitlines()
    except OSError as error:
        kinds = ", ".join(f"/{kind}" for kind in (*HOST_KINDS, "dnsaddr"))
        raise ConfigError(
            f"seed {seed.text!r} is no multiaddr ({kinds}) and no file that can be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"seed file {seed.text}: byte {error.start} is not UTF-8") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"seed file {seed.text}: more than {FILE_BYTES_MAX} bytes")
    entries = []
    for number, line in enumerate(lines, start=1):
        if word := line.partition("#")[0].strip():
            try:
                entries.append(parse_seed_address(word))
            except ConfigError as error:
                raise ConfigError(f"seed file {seed.text}:{number}: {error}") from error
    if len(entries) > ADDRESSES_MAX:
        raise ConfigError(f"seed file {seed.text}: {len(entries)} addresses, more than {ADDRESSES_MAX}")
    seed.found = tuple(entry.fixed for entry in entries if entry.fixed is not None)
    return entries


class Seeds:
    """All entries of one network. Raises ConfigError for the first that is wrong."""

    def __init__(self, texts: Iterable[str], resolve: ResolveTxt | None = None) -> None:
        self._resolve = resolve if resolve is not None else _resolve_txt
        self.entries = [parse_seed(text) for text in dict.fromkeys(texts)]

    def known(self) -> tuple[tuple[PeerId, str], ...]:
        """Peers and addresses as far as they are resolved."""
        return tuple(dict.fromkeys(each for entry in self.entries for each in entry.found))

    async def refresh(self, now: float, failing: bool) -> bool:
        """Resolve and read what is due, all at once. `failing`: no seed is reached. True where something was tried."""
        due = [entry for entry in self.entries if self._is_due(entry, now, failing)]
        async with trio.open_nursery() as nursery:
            for entry in due:
                nursery.start_soon(self._refresh, entry)
        for entry in due:
            entry.retry_at = now + entry.retry_s
            entry.retry_s = min(2.0 * entry.retry_s, RETRY_MAX_S)
        if not failing:
            for entry in self.entries:
                entry.retry_s = RETRY_FIRST_S
        return bool(due)

    def sentence(self, states: Callable[[PeerId], SeedState], own: PeerId) -> str | None:
        """What a person should know; None where a seed is reached, or none has failed yet."""
        if any(states(peer).reached for peer, _ in self.known()):
            return None
        problems: dict[str, str] = {}
        for entry in self.entries:
            if entry.problem is not None:
                problems[entry.text] = entry.problem
            for peer, address in entry.found:
                failure = states(peer).failure if peer != own else None
                if failure is not None:
                    reason = failure.replace(f"no connection to {address}: ", "")
                    problems[address] = reason.replace(f"{address}: ", "")
        if not problems:
            return None
        shown = [f"{text}: {reason[:REASON_CHARS_SHOWN]}" for text, reason in list(problems.items())[:SEEDS_SHOWN]]
        more = f"; and {len(problems) - SEEDS_SHOWN} more" if len(problems) > SEEDS_SHOWN else ""
        return f"No bootstrap peer is reached, it is tried again and again: {'; '.join(shown)}{more}."

    def _is_due(self, entry: Seed, now: float, failing: bool) -> bool:
        if entry.fixed is not None:
            return False
        if entry.path is not None and _stamp(entry.path) not in (entry.stamp, (0, 0)):
            return True
        return entry.retry_at < 0.0 or (failing and now >= entry.retry_at)

    async def _refresh(self, entry: Seed) -> None:
        try:
            with trio.fail_after(RESOLVE_S):
                if entry.path is not None:
                    await self._read(entry)
                else:
                    entry.found = await self._lookup(entry.host, entry.wanted, nested=True)
            entry.problem = None
        except (ConfigError, TransportError) as error:
            entry.problem = str(error)  # what was found before stays
        except trio.TooSlowError:
            entry.problem = f"it did not resolve in {RESOLVE_S:.0f} s"

    async def _read(self, entry: Seed) -> None:
        before, found = entry.found, []
        problem: TransportError | None = None
        for inner in read_file(entry):
            if inner.fixed is not None:
                found.append(inner.fixed)
                continue
            try:
                found += await self._lookup(inner.host, inner.wanted, nested=True)
            except TransportError as error:
                problem = error
        entry.found = tuple(found)[:ADDRESSES_MAX]
        if problem is not None:
            entry.found = tuple(dict.fromkeys((*found, *before)))[:ADDRESSES_MAX]
            raise problem

    async def _lookup(self, host: str, wanted: PeerId | None, nested: bool) -> tuple[tuple[PeerId, str], ...]:
        """Raises TransportError where the name leads to nobody."""
        name = f"_dnsaddr.{host}"
        records: list[str] = await trio.to_thread.run_sync(
            self._resolve,
            name,
            abandon_on_cancel=True,  # type: ignore[call-arg]  # as in net.worker
        )
        found: dict[tuple[PeerId, str], None] = {}
        inner: list[Seed] = []
        for record in records:
            try:
                seed = parse_seed_address(record.removeprefix("dnsaddr=")) if record.startswith("dnsaddr=") else None
            except ConfigError:
                continue  # QUIC and the like: for others
            if seed is not None and seed.fixed is not None and wanted in (None, seed.fixed[0]):
                found[seed.fixed] = None
            elif seed is not None and seed.host and nested:
                inner.append(seed)
        problem: TransportError | None = None
        for seed in inner[:NESTED_MAX]:
            try:
                for each in await self._lookup(seed.host, seed.wanted or wanted, nested=False):
                    if wanted in (None, each[0]):
                        found[each] = None
            except TransportError as error:
                problem = error
        if not found:
            raise problem or TransportError(f"the TXT records of {name} name no peer with TCP address and /p2p/ID")
        return tuple(found)[:ADDRESSES_MAX]


async def keep(
    seeds: Seeds,
    own: PeerId,
    states: Callable[[PeerId], SeedState],
    found: Callable[[PeerId, str], None],
    say: Callable[[str | None], None],
) -> None:
    """Until cancelled: hand over what is resolved, and say what is wrong as long as it is."""
    while True:
        failing = not any(states(peer).reached for peer, _ in seeds.known())
        if await seeds.refresh(trio.current_time(), failing):
            for peer, address in seeds.known():
                found(peer, address)
        say(seeds.sentence(states, own))
        await trio.sleep(LOOK_INTERVAL_S)


async def resolve_all(texts: Sequence[str], resolve: ResolveTxt | None = None) -> list[tuple[PeerId, str]]:
    """For a command that asks once. Raises ConfigError, or TransportError where nothing is left to dial."""
    seeds = Seeds(texts, resolve)
    await seeds.refresh(0.0, failing=True)
    problems = [entry.problem for entry in seeds.entries if entry.problem is not None]
    if problems and not seeds.known():
        raise TransportError("; ".join(problems))
    return list(seeds.known())


def _resolve_txt(name: str) -> list[str]:
    from p2pfed.net.txt import resolve_txt  # dnspython, only where it is used

    return resolve_txt(name)


def _stamp(path: Path) -> tuple[int, int]:
    """(0, 0) where the file is gone: what it said still counts."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
