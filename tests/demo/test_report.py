"""The report from fixed numbers: what it says, that it says what is bad, and that the page needs nobody else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from p2pfed.demo.measurement import Kind, baselines, dump_measurement, load_measurement
from p2pfed.demo.page import page
from p2pfed.demo.report import checks, limits, print_report, report_json, warnings
from p2pfed.demo.trades import TradeData
from p2pfed.errors import ExitCode, LocalError
from tests.demo.examples import measurement, report

VOID = {"meta", "br", "img", "link", "input", "hr"}
LOADING = {"src", "href", "srcset", "data", "poster", "action"}


class Strict(HTMLParser):
    """Every tag is closed in order; nothing is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {name}={value}" for name, value in attrs if name in LOADING]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def test_page_is_well_formed_and_loads_nothing() -> None:
    text = page(report())
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert parser.loaded == []
    assert {"loss-steps", "loss-bars", "histogram", "errors"} <= set(parser.ids)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme:dark" in style and "width=device-width" in text
    assert "Why does it stop &lt;/script&gt; here?" in text


def test_page_holds_the_numbers() -> None:
    text = page(report())
    assert "4.50 → 2.50" in text
    for each in ("always 3 (the commonest)", "greenhouse alone", "found each other by mDNS"):
        assert each in text
    found = re.search(r"const figures=(\{.*?\});\n?const dark", text, re.DOTALL)
    assert found is not None
    names = re.findall(r"'([a-z-]+)':\{\"data\"", found[1])
    assert names == ["loss-steps", "loss-bars", "histogram", "errors"]


def test_checks_are_met_or_not_by_the_numbers() -> None:
    good = report()
    assert [each.met for each in checks(good)] == [True, True, True]
    bad = report(consensus=(2, 0, 0, 0, 0))
    assert [each.met for each in checks(bad)] == [True, True, False]
    assert "10%" in checks(bad)[2].sentence


def test_one_score_for_everything_is_said_prominently() -> None:
    assert warnings(report()) == ()
    one_sided = report(consensus=(0, 0, 19, 1, 0))
    assert len(warnings(one_sided)) == 1
    assert warnings(one_sided)[0].startswith("Consensus gives a 3 in 95% of its verdicts")
    assert "class='warning'" in page(one_sided) and "class='warning'" not in page(report())
    console = Console(record=True, width=140, file=Path("/dev/null").open("w"))  # noqa: SIM115
    print_report(one_sided, console, (Path("out/report.html"),))
    text = console.export_text()
    assert "gives a 3 in 95% of its verdicts" in text
    assert "consensus" in text and "always 3 (the commonest)" in text and "out/report.html" in text


def test_limits_name_who_answers_unread() -> None:
    assert "the trade's mean score" in limits(report()) and "1.19" in limits(report())


def test_json_is_whole() -> None:
    values = json.loads(report_json(report()))
    assert values["format"] == 1
    assert [each["kind"] for each in values["measurements"]] == ["base", *["isolated"] * 4, "consensus"]
    assert values["measurements"][-1]["all"]["loss"] == 2.5
    assert values["checks"][0]["met"] is True and values["warnings"] == []


def test_measurements_cross_processes_whole(tmp_path: Path) -> None:
    before = measurement("lift", Kind.ISOLATED, 2.5, (1, 2, 3, 4, 5))
    dump_measurement(before, tmp_path / "lift.json")
    assert load_measurement(tmp_path / "lift.json") == before
    (tmp_path / "half.json").write_text('{"name": "lift"', encoding="utf-8")
    with pytest.raises(LocalError) as caught:
        load_measurement(tmp_path / "half.json")
    assert caught.value.exit_code is ExitCode.DEMO


def test_baselines_read_only_training_scores() -> None:
    here = Path("x")
    data = (
        TradeData("a", here, here, (1, 1, 1, 3), (1, 5)),
        TradeData("b", here, here, (5, 5), (5, 4)),
    )
    constant, mean = baselines(data)
    assert constant.name == "always 1 (the commonest)"
    assert constant.mae == pytest.approx((0 + 4 + 4 + 3) / 4)
    assert constant.trades == {"a": 2.0, "b": 3.5}
    assert constant.histogram == (4, 0, 0, 0, 0)
    assert mean.trades == {"a": pytest.approx((0.5 + 3.5) / 2), "b": 0.5}
