"""A session's outbox: bounded, messages before parts, last words before the end."""

import trio

from p2pfed.core.events import SendPart
from p2pfed.core.messages import IdentityInUse, PartAsk, Ping
from p2pfed.net.session import SEND_QUEUE_MAX, Outbox

PART = SendPart(1, bytes(32), 0)
ASK = PartAsk(bytes(32), (0,))


def test_an_ask_is_never_behind_the_parts_that_were_asked_for() -> None:
    async def main() -> None:
        outbox = Outbox()
        for item in (PART, PART, ASK):
            assert outbox.put(item)
        assert [await outbox.take() for _ in range(3)] == [ASK, PART, PART]

    trio.run(main)


def test_it_is_bounded() -> None:
    outbox = Outbox()
    assert all(outbox.put(PART) for _ in range(SEND_QUEUE_MAX))
    assert not outbox.put(ASK)


def test_closing_lets_messages_out_and_forgets_parts() -> None:
    async def main() -> None:
        outbox = Outbox()
        outbox.put(PART)
        outbox.put(IdentityInUse(7))
        outbox.close()
        assert outbox.put(Ping(1)), "after the end nothing is refused, it just goes nowhere"
        assert await outbox.take() == IdentityInUse(7)
        assert await outbox.take() is None

    trio.run(main)
