"""What is shown: a table that fits, and few plain lines where there is no terminal."""

import io

from rich.console import Console

from p2pfed.demo.live import NodeLine, PlainLines, Progress, node_table, open_display

NODES = [
    NodeLine("greenhouse", "greenhouse controller", "training", 3, 17, 48, 9, 3.4567, 12_345_678, 987_654, 0.25),
    NodeLine("building", "building energy", "loading the model", steps_max=48),
]


def shown(width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(node_table(NODES, width))
    return console.export_text()


def test_the_table_has_every_column_where_there_is_room() -> None:
    text = shown(120)
    for each in ("greenhouse controller", "17/48", "3.457", "12.3 MB", "1.0 MB", "0.250", "loading the model"):
        assert each in text


def test_the_table_fits_a_narrow_terminal() -> None:
    text = shown(72)
    assert "17/48" in text and "0.250" in text
    assert max(map(len, text.splitlines())) <= 72 and "…" not in text


def test_plain_lines_are_few() -> None:
    out = io.StringIO()
    now = [0.0]
    lines = PlainLines(Console(file=out, width=200), lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        lines.show(Progress("training", second / 100, second, 75.0, f"the base {second}%"), NODES)
    lines.show(Progress("measuring", 0.5, 25.0), NODES)
    printed = out.getvalue().splitlines()
    assert len(printed) == 4
    assert printed[0].startswith("[0:00] training: the base 0%, about 1:15 left; greenhouse 17/48 loss 3.457 swaps 9")
    assert printed[-1].startswith("[0:25] measuring; ")


def test_no_terminal_means_plain_lines() -> None:
    with open_display(Console(file=io.StringIO())) as display:
        assert isinstance(display, PlainLines)
