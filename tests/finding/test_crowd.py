"""Thirty nodes that know one bootstrap peer only; then it is gone, and ten more join through whom they remember."""

from pathlib import Path

import pytest

from tests.finding.crowd import Crowd, play, until

NODES = 30
LATER = 10
NEIGHBOURS = 8
FOUND_S = 30.0


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_thirty_nodes_meet_through_one_bootstrap_peer_and_ten_more_when_it_is_dead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(crowd: Crowd) -> None:
        def poor() -> dict[str, int]:
            counts = {name: crowd.neighbours(name) for name in crowd.nodes()}
            return {name: count for name, count in counts.items() if count < NEIGHBOURS}

        seed = await crowd.bootstrap("bootstrap")
        for number in range(NODES):
            await crowd.node(f"node-{number}", [seed])
        met_s = await until(lambda: not poor(), FOUND_S, poor)
        for number in range(LATER):  # an earlier run of theirs
            await crowd.node(f"later-{number}", [seed])
        await until(lambda: not poor(), FOUND_S, poor)
        for number in range(LATER):
            await crowd.stop(f"later-{number}")
        crowd.kill("bootstrap")
        for number in range(LATER):
            await crowd.node(f"later-{number}", [seed])
        joined_s = await until(lambda: not poor(), FOUND_S, poor)
        with capsys.disabled():
            print(f"\n{NODES} nodes met in {met_s:.1f} s, {LATER} more in {joined_s:.1f} s without the bootstrap peer")
        notices = [f"later-{number}" for number in range(LATER)]
        await until(lambda: all("nothing listens there" in crowd.notices(name) for name in notices), FOUND_S)

    play(tmp_path, story, 160.0)
