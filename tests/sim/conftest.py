"""What the protocol costs, against the record, is told at the end of every test run: a change shows its price."""

import pytest

COSTS = pytest.StashKey[list[str]]()


@pytest.fixture
def record_cost(request: pytest.FixtureRequest) -> list[str]:
    return request.config.stash.setdefault(COSTS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(COSTS, [])
    if lines:
        terminalreporter.section("protocol cost against the record")
        for line in lines:
            terminalreporter.write_line(line)
