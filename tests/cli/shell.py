"""Types commands: in this process, which is quick, or in one of their own, where signals and imports count."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from p2pfed.cli.main import run
from p2pfed.errors import ExitCode

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Result:
        self._capsys.readouterr()
        code = run([str(each) for each in arguments])
        out, err = self._capsys.readouterr()
        return Result(int(code), out, err)

    def refused(self, code: ExitCode, *arguments: str | Path) -> str:
        """The one sentence on stderr, checked for its form."""
        result = self(*arguments)
        assert result.code == code, result
        sentence = result.err.rstrip("\n")
        page = re.fullmatch(rf"p2pfed: .+ \[exit {code.value}, (docs/exit-codes/[0-9a-z-]+\.md)\]", sentence)
        assert page, f"not one sentence with a page: {result.err!r}"
        assert (ROOT / page[1]).is_file(), f"{page[1]} is not there"
        assert result.out == ""
        return sentence


def process(*arguments: str | Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "p2pfed", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", **environment},
    )
