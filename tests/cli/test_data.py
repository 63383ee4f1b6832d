"""`p2pfed data check`."""

from pathlib import Path

import pytest

from p2pfed.errors import ExitCode
from tests.cli.shell import Shell


def test_rows_and_rejected_lines(shell: Shell, data: Path) -> None:
    text = shell("data", "check", data).out
    assert "2 (2 text)" in text
    assert "keys oops" in text
    described = shell("data", "check", data, "--format", "json").json
    assert described["rows"] == 2
    assert [each["line"] for each in described["rejected_rows"]] == [2]
    assert described["characters"]["most"] == 12


def test_nothing_usable(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("{}\nnot json\n")
    assert "line 1" in shell.refused(ExitCode.DATA, "data", "check", path)
    assert "neither a file" in shell.refused(ExitCode.DATA, "data", "check", tmp_path / "none.jsonl")


@pytest.mark.slow
@pytest.mark.model
def test_as_the_model_sees_it(shell: Shell, data: Path, network: Path) -> None:
    with data.open("a") as file:
        file.write('{"text": "' + "The cat sat. " * 100 + '"}\n')
    described = shell("data", "check", data, "--network", network, "--format", "json").json
    assert described["usable_rows"] == 2
    assert described["tokens_max"] == 128
    assert [each["line"] for each in described["not_trainable"]] == [5]
    assert described["samples"][0] == {
        "line": 1,
        "tokens": described["samples"][0]["tokens"],
        "prompt": "<bos>",
        "completion": "The cat sat.<eos>",
    }
    text = shell("data", "check", data, "--network", network).out
    assert "The cat sat.<eos>" in text and "more than the sequence limit 128" in text
