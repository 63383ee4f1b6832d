"""docs/protocol.md and the code say the same: tags, field order, bounds."""

import hashlib
import re
from dataclasses import fields
from pathlib import Path

import numpy
import pytest

from p2pfed.core import messages as m
from p2pfed.core.estimate import EPOCH_SWAPS, EPOCHS
from p2pfed.core.mixing import AWAY_MIXES
from p2pfed.core.patience import LOST_MIN_S, SERVE_RATE_MIN, SERVE_STALL_S, STALL_MIN_S, STALL_S
from p2pfed.core.transfer import WINDOW_MIN, WINDOW_S
from p2pfed.core.version import SIZE_MAX
from p2pfed.errors import RemoteError
from p2pfed.ports import FRAME_BYTES_MAX, Encoding
from p2pfed.wire.codec import FORMS, LEADER_MAX, TALLY_VALUE_MAX, WEIGHT_MAX, decode, encode
from p2pfed.wire.tensors import DTYPES, INTEGER_HEADER_BYTES, MAGICS, pack_tensors, unpack_tensors
from tests.wire.examples import EXAMPLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text()


def test_every_message_is_there_under_its_tag_and_no_other() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert listed == [(str(tag), form.kind.__name__) for tag, form in FORMS.items()]


@pytest.mark.parametrize("kind", [m.Hello, m.Version, m.Terms, m.Tally])
def test_the_tables_of_fields_follow_the_frame(kind: type) -> None:
    section = PAGE.partition(f"### {kind.__name__}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (\d+) \| ([a-z ]+) \|", section, re.MULTILINE)
    shortened = {"time_s": "time", "parts": "part hashes"}
    names = [shortened.get(each.name, each.name.replace("_", " ")) for each in fields(kind)]
    assert rows == [(str(at), each) for at, each in enumerate(names, start=1)]


@pytest.mark.parametrize(
    "bound", [FRAME_BYTES_MAX, SIZE_MAX, m.PART_BYTES, m.PARTS_MAX, m.PARTS_MAX - 1, int(m.RETRY_AFTER_S_MAX)]
)
def test_bounds_are_written_as_they_are(bound: int) -> None:
    assert f"{bound:,}" in PAGE


def test_the_small_frames_on_the_page_are_real() -> None:
    assert f"`{encode(EXAMPLES['version-ask']).hex()}`" in PAGE
    assert f"`{encode(EXAMPLES['ping']).hex()}`" in PAGE


def test_powers_are_written_as_they_are() -> None:
    assert WEIGHT_MAX == 2**40 and "1 to 2^40: rows" in PAGE
    assert EPOCHS == 2**32 and "below 2^32; counted" in PAGE
    assert LEADER_MAX == 2**53 - 1 and "integer, below 2^53" in PAGE
    assert TALLY_VALUE_MAX == 1e300 and PAGE.count("0 to 10^300") == 2
    assert f"made {EPOCH_SWAPS} swaps in one counting" in PAGE
    assert f"exactly {m.OWN_VALUES + 1} floats" in PAGE and f"exactly {m.OWN_VALUES} floats" in PAGE
    assert f"at least {AWAY_MIXES} mixes fewer" in PAGE
    assert f"{STALL_S:.0f} s without progress" in PAGE and f"({SERVE_STALL_S:.0f} s where" in PAGE
    assert f"not before {STALL_MIN_S:.0f} s" in PAGE and f"{LOST_MIN_S:.0f} to {STALL_S:.0f} s" in PAGE
    assert (
        f"in about {WINDOW_S:.0f} s, {WINDOW_MIN} at least" in PAGE and f"{SERVE_RATE_MIN:,.0f} bytes a second" in PAGE
    )


def test_words_are_listed_as_they_are() -> None:
    assert "`" + "`, `".join(m.DeclineReason) + "`" in PAGE
    assert "coarse to fine `" + "`, `".join(Encoding) + "`" in PAGE
    for encoding, dtype in DTYPES.items():
        assert f"| `{encoding}` | `{dtype}` |" in PAGE
    for encoding, magic in MAGICS.items():
        assert f"| `{encoding}` | the 8 ASCII characters `{magic.decode()}`, then the SHA-256" in PAGE
    assert f"always {INTEGER_HEADER_BYTES} bytes" in PAGE


def test_the_worked_example_is_real() -> None:
    values = {"x": numpy.array([0.5, -1.0, 0.26], numpy.float32)}
    block = re.search(r"```\n(7032.*?)```", PAGE, re.DOTALL)
    assert block is not None
    payload = pack_tensors(values, Encoding.INT4)
    assert payload == bytes.fromhex("".join(line.split("  ")[0] for line in block[1].splitlines()))
    text = re.search(r"The layout text is\n`(.*?)`", PAGE)
    assert text is not None and payload[8:40] == hashlib.sha256(text[1].encode()).digest()
    for encoding in (Encoding.INT4, Encoding.INT8):
        for value in unpack_tensors(pack_tensors(values, encoding), {"x": (3,)}, encoding)["x"]:
            assert repr(float(value)) in PAGE
    assert pack_tensors(values, Encoding.INT8).endswith(bytes.fromhex("0920" + "3f8121") + bytes(61))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_vector_without_its_last_byte_is_refused(name: str) -> None:
    with pytest.raises(RemoteError):
        decode(encode(EXAMPLES[name])[:-1])


def test_no_vector_holds_a_path_or_host_of_a_real_network() -> None:
    text = "".join(path.read_text() for path in (ROOT / "tests" / "wire" / "vectors").glob("*.json"))
    assert set(re.findall(r"/ip4/([\d.]+)", text)) <= {"192.0.2.7"}
