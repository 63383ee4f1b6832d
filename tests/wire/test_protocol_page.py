"""docs/protocol.md and the code say the same: tags, field order, bounds."""

import re
from pathlib import Path

import pytest

from p2pfed.core import messages as m
from p2pfed.core.version import SIZE_MAX
from p2pfed.errors import RemoteError
from p2pfed.ports import FRAME_BYTES_MAX
from p2pfed.wire.codec import FORMS, RETRY_AFTER_S_MAX, decode, encode
from tests.wire.examples import EXAMPLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text()


def test_every_message_is_there_under_its_tag_and_no_other() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert listed == [(str(tag), form.kind.__name__) for tag, form in FORMS.items()]


@pytest.mark.parametrize("name", ["hello", "version"])
def test_the_tables_of_fields_follow_the_frame(name: str) -> None:
    kind = {"hello": m.Hello, "version": m.Version}[name]
    section = PAGE.partition(f"### {kind.__name__}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (\d+) \| ([a-z ]+) \|", section, re.MULTILINE)
    shortened = {"time_s": "time", "parts": "part hashes"}
    names = [shortened.get(each, each.replace("_", " ")) for each in kind.__dataclass_fields__]
    assert rows == [(str(at), each) for at, each in enumerate(names, start=1)]


@pytest.mark.parametrize(
    "bound", [FRAME_BYTES_MAX, SIZE_MAX, m.PART_BYTES, m.PARTS_MAX, m.PARTS_MAX - 1, int(RETRY_AFTER_S_MAX)]
)
def test_bounds_are_written_as_they_are(bound: int) -> None:
    assert f"{bound:,}" in PAGE


def test_the_small_frames_on_the_page_are_real() -> None:
    assert f"`{encode(EXAMPLES['version-ask']).hex()}`" in PAGE
    assert f"`{encode(EXAMPLES['ping']).hex()}`" in PAGE


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_vector_without_its_last_byte_is_refused(name: str) -> None:
    with pytest.raises(RemoteError):
        decode(encode(EXAMPLES[name])[:-1])


def test_no_vector_holds_a_path_or_host_of_a_real_network() -> None:
    text = "".join(path.read_text() for path in (ROOT / "tests" / "wire" / "vectors").glob("*.json"))
    assert set(re.findall(r"/ip4/([\d.]+)", text)) <= {"192.0.2.7"}
