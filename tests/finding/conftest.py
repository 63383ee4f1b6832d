"""What is looked at every two seconds is looked at more often here."""

import pytest

from p2pfed.net import seeds
from p2pfed.net.dht import rounds


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "LOOK_INTERVAL_S", 0.2)
    monkeypatch.setattr(rounds, "LOOK_INTERVAL_S", 0.2)
