"""python-zeroconf on one interface, for one IP version: opened and closed in threads, heard in the trio thread.

Ours are random names, so there is nothing to probe for: the record is announced at once. Of what zeroconf hears only
news of our service comes here, and bounded.
What zeroconf has no means for: it reads every packet, so garbage in masses on port 5353 costs up to a core; it keeps
what it hears without a bound on memory, so it is closed in a flood of records; a socket of Linux hears what any other
brought in, and of IPv4 nothing says on which interface that was (see MdnsDiscovery); why a packet could not be sent is
not told, only that it is not heard.
"""

import logging
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import trio
from zeroconf import DNSQuestionType, IPVersion, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf
from zeroconf import Error as ZeroconfError

from p2pfed.net.mdns_txt import SERVICE

Result = TypeVar("Result")

log = logging.getLogger("p2pfed.net")
# what it cannot send, it says with a traceback; people get one sentence from us
logging.getLogger("zeroconf").setLevel(logging.CRITICAL)

PORT = 5353
GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}
VERSIONS = {4: IPVersion.V4Only, 6: IPVersion.V6Only}
ASK_INTERVAL_S = 60.0
"""Zeroconf asks at the start and 1, 5 and 14 s later; so often a new browser, for networks joined afterwards."""
OPEN_RETRY_S = 1.0
"""After zeroconf could not be started: a new IPv6 address may take a second or two until it can be used."""
CERTAIN_S = 4.0
"""Own packets come back within milliseconds, and addresses get ready: after this time they do not."""
WAITING_MAX = 64
"""Records heard and not looked at yet; more are dropped, and heard again when their senders repeat them."""
RECORDS_PER_S_MAX = 1000
"""New or changed; five hundred peers that start at once are less. Zeroconf remembers each name for minutes, without a
bound: beyond this it is closed."""
FLOOD_PAUSE_S = 60.0
LOOK_INTERVAL_S = 0.05
"""Between two looks at them: 1,280 records a second at most, at 25 us each (measured)."""
HOSTS_MAX = 16
"""Addresses in a stranger's A and AAAA records; the rest is not looked at."""
CLOSE_S = 1.5
"""For the goodbye on the way out, three packets in 0.25 s; one that hangs is left to its daemon threads."""

TTL_S = 120
"""How long others keep a record that they hear no goodbye of; zeroconf keeps names for 1,125 s at least."""

INSTEAD = "until then, give nodes --bootstrap MULTIADDR"


@dataclass(slots=True)
class LinkReport:
    """What happened on one link so far."""

    interface: str
    version: int
    """4 or 6."""
    heard_own: bool = False
    names: dict[str, None] = field(default_factory=dict)
    """Records of others."""
    problem: str | None = None
    """A sentence for people, once it is certain."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A record of our service: new, changed, or gone."""

    name: str
    text: bytes | None
    """The TXT record's data; None when the record is gone."""
    hosts: tuple[str, ...] = ()
    """Addresses of its A and AAAA records; a link-local one with the number of the interface, where that is known."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is announced: TXT data, the port, and the addresses for A and AAAA."""

    name: str
    text: bytes
    port: int
    hosts: tuple[str, ...]


class MdnsResponder:
    def __init__(
        self,
        interface: str,
        version: int,
        where: str | int,
        record: Record | None,
        on_heard: Callable[["MdnsResponder", Heard], None],
        on_problem: Callable[[str], None],
    ) -> None:
        """`where`: own address there, or the interface's number (IPv6). `record` None: listen and ask only."""
        self.report = LinkReport(interface, version)
        self.where = where
        self.record = record
        self.closed = trio.Event()
        self._on_heard = on_heard
        self._on_problem = on_problem
        self._token: trio.lowlevel.TrioToken | None = None
        self._zeroconf: Zeroconf | None = None
        self._browser: ServiceBrowser | None = None
        self._waiting: deque[Heard] = deque()
        self._arrived = trio.Event()
        self._heard_own = trio.Event()
        self._flooded = trio.Event()
        self._changes = 0
        """Within this second."""
        self._over = False

    def __str__(self) -> str:
        return f"{self.report.interface} (IPv{self.report.version})"

    async def run(self) -> None:
        """Until cancelled; then says goodbye. Never raises: what does not work is told to `on_problem`."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                while True:
                    await self._start()
                    nursery.start_soon(self._expect_own)
                    await self._ask_until_flooded()
                    await _in_thread(self._close)
                    self._fail(
                        f"mDNS on {self} is off for {FLOOD_PAUSE_S:g} s: somebody announces more than "
                        f"{RECORDS_PER_S_MAX} records a second there; {INSTEAD}"
                    )
                    await trio.sleep(FLOOD_PAUSE_S)
                    self._flooded = trio.Event()
        finally:
            self._over = True
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                await _in_thread(self._close)
            self.closed.set()

    def note_own(self) -> None:
        """The own record was heard."""
        self.report.heard_own = True
        self.report.problem = None
        self._heard_own.set()

    async def _start(self) -> None:
        started = trio.current_time()
        while (problem := await _in_thread(self._open)) is not None:
            if trio.current_time() - started >= CERTAIN_S:  # before, an interface that came or went
                self._fail(f"mDNS is off on {self}: {problem}; tried again every {OPEN_RETRY_S:g} s")
            await trio.sleep(OPEN_RETRY_S)

    async def _ask_until_flooded(self) -> None:
        while True:
            with trio.move_on_after(ASK_INTERVAL_S) as quiet:
                await self._flooded.wait()
            if not quiet.cancelled_caught:
                return
            await _in_thread(self._ask)

    async def _expect_own(self) -> None:
        with trio.move_on_after(CERTAIN_S):
            await self._heard_own.wait()
        if self.record is not None and not self.report.heard_own:
            self._fail(
                f"mDNS on {self}: what is sent to {GROUPS[self.report.version]} does not come back, so a firewall "
                f"blocks UDP port {PORT}: allow it in and out; {INSTEAD}"
            )

    async def _listen(self) -> None:
        second = trio.current_time()
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            for _ in range(len(self._waiting)):
                self._on_heard(self, self._waiting.popleft())
            if self._changes > RECORDS_PER_S_MAX:
                self._flooded.set()
            if trio.current_time() - second >= 1.0:
                second, self._changes = trio.current_time(), 0
            await trio.sleep(LOOK_INTERVAL_S)

    def _fail(self, sentence: str) -> None:
        if self.report.problem != sentence:
            self.report.problem = sentence
            self._on_problem(sentence)

    def _open(self) -> str | None:
        """In a thread. What went wrong."""
        try:
            _probe(self.report.interface, self.report.version, self.where)
            zeroconf = Zeroconf(interfaces=[self.where], ip_version=VERSIONS[self.report.version])
            self._zeroconf = zeroconf
            self._browser = self._browse(zeroconf)
            if self.record is not None:
                zeroconf.register_service(_info(self.record), cooperating_responders=True)
        except (ZeroconfError, OSError, RuntimeError) as error:
            self._close()
            return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        if self._over:  # given up meanwhile
            self._close()
        return None

    def _browse(self, zeroconf: Zeroconf) -> ServiceBrowser:
        """Asks the group: an answer to this host alone would reach one of several processes that share the port."""
        return ServiceBrowser(zeroconf, SERVICE, handlers=[self._on_change], question_type=DNSQuestionType.QM)

    def _ask(self) -> None:
        """In a thread. A new browser asks anew."""
        if self._zeroconf is not None and self._browser is not None:
            before, self._browser = self._browser, self._browse(self._zeroconf)
            before.cancel()

    def _close(self) -> None:
        """In a thread."""
        browser, self._browser = self._browser, None
        zeroconf, self._zeroconf = self._zeroconf, None
        with suppress(ZeroconfError, OSError, RuntimeError):
            if browser is not None:
                browser.cancel()
            if zeroconf is not None:
                zeroconf.close()

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """In the browser's thread, which an exception would end."""
        self._changes += 1
        if len(self._waiting) >= WAITING_MAX:
            return
        if state_change is ServiceStateChange.Removed:
            heard = Heard(name.lower(), None)
        else:
            try:
                info = ServiceInfo(service_type, name)
                info.load_from_cache(zeroconf)  # complete or not: we want the TXT record only
                heard = Heard(name.lower(), info.text, tuple(info.parsed_scoped_addresses()[:HOSTS_MAX]))
            except (ZeroconfError, ValueError) as error:
                log.debug("mDNS record %.80r ignored: %s", name, error)
                return
        self._waiting.append(heard)
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        self._arrived.set()


async def _in_thread(function: Callable[[], Result]) -> Result:
    """Left behind when cancelled: each of zeroconf's calls ends by itself within seconds."""
    # trio-typing, which libp2p installs, hides trio's own types and knows an older name only
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True)  # type: ignore[call-arg]


def _info(record: Record) -> ServiceInfo:
    return ServiceInfo(
        SERVICE,
        record.name,
        port=record.port,
        properties=record.text,
        server=f"{record.name.partition('.')[0]}.local.",
        other_ttl=TTL_S,
        parsed_addresses=list(record.hosts),
    )


def _probe(interface: str, version: int, where: str | int) -> None:
    """Raises OSError for an interface that is gone, and an address that is not ready: zeroconf would say nothing."""
    index = socket.if_nametoindex(interface)
    if isinstance(where, int):
        return
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind((where, 0) if version == 4 else (where, 0, 0, index))
