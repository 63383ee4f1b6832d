"""Configuration files: what is written is read back, and what is wrong is named with its line."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed import config_keys as keys
from p2pfed.config import (
    FIELD_CHARS_MAX,
    AdapterConfig,
    GossipConfig,
    ModelConfig,
    NetworkConfig,
    NodeConfig,
    TrainingConfig,
)
from p2pfed.config_file import (
    dump_network,
    dump_node,
    load_network,
    load_node,
    parse_network,
    parse_node,
)
from p2pfed.core.messages import ADDRESS_CHARS_MAX, FIELDS_MAX, TEXT_CHARS_MAX
from p2pfed.errors import ConfigError, ExitCode
from p2pfed.ports import Encoding
from p2pfed.presets import PRESETS, network_of_preset

MINIMAL = 'name = "lifts"\n[model]\nbase = "owner/name"\n'

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
texts = st.text(max_size=200).filter(str.isprintable)
addresses = st.lists(st.sampled_from(["/ip4/192.0.2.1/tcp/1/p2p/12D3KooW", "/dns4/a.example/tcp/2", "/ip6/::1/tcp/0"]))
fractions = st.floats(0, 1, exclude_min=True)
MEMBERS = tuple(
    f"12D3KooW{'abcdefgh'[place // 8]}{'stuvwxyz'[place % 8]}{'1' * 42}" for place in range(keys.MEMBERS_MAX)
)
hashes = st.sampled_from(["", "0f" * 32])
NETWORKS = st.builds(
    NetworkConfig,
    name=names,
    model=st.builds(
        ModelConfig,
        base=st.sampled_from(["owner/name", "./folder", "package:glassllm-en", 'quote"back\\slash', "é\u00a1"]),
        revision=st.text("abc-/.", max_size=20),
        quantisation=st.sampled_from(keys.QUANTISATIONS),
        prompt=st.sampled_from(keys.PROMPTS),
        sequence_tokens_max=st.integers(16, 131072),
        base_sha256=hashes,
        tokenizer_sha256=hashes,
    ),
    adapter=st.builds(
        AdapterConfig,
        rank=st.integers(1, 1024),
        alpha=st.floats(0, 65536, exclude_min=True),
        targets=st.lists(st.sampled_from(["q_proj", "v_proj", "gate_proj"]), min_size=1, unique=True).map(tuple),
        seed=st.integers(0, keys.INTEGER_MAX),
    ),
    training=st.builds(TrainingConfig, learning_rate=fractions, weight_decay=fractions, warmup_steps=st.integers(0, 9)),
    gossip=st.builds(
        GossipConfig,
        encoding=st.sampled_from(keys.ENCODINGS),
        clip=st.just(0.0) | st.floats(keys.CLIP_MIN, keys.CLIP_MAX),
        momentum=st.sampled_from(keys.MOMENTA),
        weighting=st.sampled_from(keys.WEIGHTINGS),
        swap_interval_s=fractions,
        members=st.integers(0, keys.MEMBERS_MAX).map(lambda count: MEMBERS[:count]),
    ),
    bootstrap=addresses.map(tuple),
)
NODES = st.builds(
    NodeConfig,
    data=texts,
    name=st.just("") | names,
    home=texts,
    listen=addresses.map(tuple),
    mdns=st.booleans(),
    threads=st.integers(1, 1024),
    checkpoint_interval_s=fractions,
    encoding=st.sampled_from(["", *keys.ENCODINGS]),
    swap_day_bytes=st.integers(0, keys.INTEGER_MAX),
)


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_network(text, "network.toml")
    assert caught.value.exit_code is ExitCode.CONFIG
    return str(caught.value)


def refused_node(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_node(text, "node.toml")
    return str(caught.value)


@settings(max_examples=150, deadline=None)
@given(NETWORKS, st.booleans())
def test_a_network_is_read_back_equal_with_the_same_id(config: NetworkConfig, comments: bool) -> None:
    back = parse_network(dump_network(config, comments), "x")
    assert back == config
    assert back.network_id == config.network_id


@settings(max_examples=100, deadline=None)
@given(NODES, st.booleans())
def test_a_node_file_is_read_back_equal(config: NodeConfig, comments: bool) -> None:
    assert parse_node(dump_node(config, comments), "x") == config


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text("[]{}=.\"'\\\n#ab1 e-", max_size=60), st.sampled_from(["", MINIMAL]))
def test_any_text_gives_a_config_or_a_config_error(junk: str, before: str) -> None:
    try:
        parse_network(before + junk, "x")
    except ConfigError as error:
        assert "\n" not in str(error)


def test_the_id_of_a_given_file_never_changes(tmp_path: Path) -> None:
    """Devices in the field hold this file: another id would cut them off their network."""
    path = tmp_path / "network.toml"
    path.write_text(
        'name = "greenhouses"\nbootstrap = ["/dns4/a.example/tcp/4001"]\n'
        '[model]\nbase = "package:smollm2-135m"\nprompt = "p2pfed-compact/1"\nsequence_tokens_max = 384\n'
        "[adapter]\nrank = 8\nalpha = 16\n[gossip]\nsteps_between_swaps = 5\n"
    )
    config = load_network(path)
    assert config.network_id == "756ca981c41dffb7"
    assert replace(config, bootstrap=()).network_id == config.network_id
    assert replace(config, adapter=replace(config.adapter, rank=9)).network_id != config.network_id


def test_an_integer_where_a_float_belongs_means_the_same_network() -> None:
    as_int, as_float = (parse_network(MINIMAL + f"[adapter]\nalpha = {alpha}\n", "x") for alpha in ("16", "16.0"))
    assert type(as_int.adapter.alpha) is float
    assert as_int.network_id == as_float.network_id


def dotted(config: Any, prefix: str = "") -> list[str]:
    names = []
    for field in fields(config):
        value = getattr(config, field.name)
        names += dotted(value, f"{prefix}{field.name}.") if is_dataclass(value) else [prefix + field.name]
    return names


def test_every_key_has_a_comment_and_a_rule_and_no_other() -> None:
    assert sorted(dotted(PRESETS["prometheus-7b"])) == sorted(keys.NETWORK_KEYS)
    assert sorted(dotted(NodeConfig())) == sorted(keys.NODE_KEYS)
    text = dump_network(PRESETS["prometheus-7b"])
    assert all(f"# {key.comment}\n" in text for key in keys.NETWORK_KEYS.values())


def test_defaults_and_presets_keep_their_own_rules() -> None:
    assert parse_network(MINIMAL, "x") == NetworkConfig("lifts", ModelConfig("owner/name"))
    assert parse_node("", "x") == NodeConfig()
    for name, preset in PRESETS.items():
        assert parse_network(dump_network(preset), name) == preset


def test_what_a_hello_holds_fits_the_wire() -> None:
    assert FIELD_CHARS_MAX == TEXT_CHARS_MAX
    assert keys.ADDRESS_CHARS_MAX == ADDRESS_CHARS_MAX
    full = replace(PRESETS["prometheus-7b"], gossip=GossipConfig(members=MEMBERS))
    assert len(full.fields()) <= FIELDS_MAX
    assert all(len(name) <= TEXT_CHARS_MAX and len(value) <= TEXT_CHARS_MAX for name, value in full.fields())


def test_encodings_are_those_of_the_wire() -> None:
    assert tuple(Encoding) == keys.ENCODINGS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            MINIMAL + "[adapter]\n# a comment\nrnak = 16\n",
            'network.toml:6: adapter.rnak = 16: unknown key, the nearest known one is "adapter.rank"',
        ),
        ("rank = 16\n" + MINIMAL, 'network.toml:1: rank = 16: unknown key, the nearest known one is "adapter.rank"'),
        (
            MINIMAL + "[adaptor]\nrank = 1\n",
            'network.toml:4: adaptor = a table: unknown key, the nearest known one is "adapter"',
        ),
        (MINIMAL + "zzz = 1\n", "network.toml:4: model.zzz = 1: unknown key, known here are base, revision"),
        (MINIMAL + '[adapter]\nrank = "16"\n', 'network.toml:5: adapter.rank = "16": is not an integer'),
        (MINIMAL + "[adapter]\nrank = true\n", "adapter.rank = true: is not an integer"),
        (MINIMAL + "[adapter]\nrank = 16.0\n", "adapter.rank = 16.0: is not an integer"),
        (MINIMAL + "[adapter]\nalpha = true\n", "adapter.alpha = true: is not a number"),
        (MINIMAL + "[adapter]\nrank = 0\n", "network.toml:5: adapter.rank = 0: must be within 1 to 1024"),
        (MINIMAL + "[adapter]\nrank = 1025\n", "adapter.rank = 1025: must be within 1 to 1024"),
        (MINIMAL + "[adapter]\nalpha = nan\n", "adapter.alpha = nan: must be above 0"),
        (MINIMAL + "[adapter]\nalpha = inf\n", "adapter.alpha = inf: must be above 0"),
        (MINIMAL + "[adapter]\ntargets = []\n", "adapter.targets = []: must be 1 to 16 different module names"),
        (MINIMAL + '[adapter]\ntargets = ["a", "a"]\n', "different module names"),
        (MINIMAL + '[adapter]\ntargets = "q_proj"\n', 'adapter.targets = "q_proj": is not a list of texts'),
        (MINIMAL + "[adapter]\ntargets = [1]\n", "adapter.targets = [1]: is not a list of texts"),
        (MINIMAL + "adapter = 3\n", "model.adapter = 3: unknown key"),
        ("adapter = 3\n" + MINIMAL, "network.toml:1: adapter = 3: is not a table; write [adapter]"),
        (MINIMAL + 'prompt = "p2pfed-absolut/1"\n', 'the nearest is "p2pfed-absolute/1"'),
        (MINIMAL + 'quantisation = "int3"\n', 'model.quantisation = "int3": must be one of "none", "nf4"'),
        (MINIMAL + 'base_sha256 = "0F"\n', "64 lower-case hex digits"),
        (MINIMAL + '[gossip]\nencoding = "flot32"\n', '"float16", "float32"; the nearest is "float32"'),
        (MINIMAL + "[gossip]\nclip = 1.4\n", "gossip.clip = 1.4: must be 0 (none is clipped), or within 1.5 to 100"),
        (MINIMAL + "[gossip]\nclip = nan\n", "gossip.clip = nan: must be 0"),
        (MINIMAL + "[gossip]\nclip = -2\n", "gossip.clip = -2.0: must be 0"),
        (MINIMAL + '[gossip]\nmomentum = "quasi"\n', 'one of "local", "quasi-global", "gossip"'),
        (MINIMAL + '[gossip]\nweighting = "example"\n', 'one of "uniform", "examples"; the nearest is "examples"'),
        (MINIMAL + '[gossip]\nmembers = ["lift-7"]\n', "at most 64 different peer ids such as 12D3KooW"),
        (MINIMAL + f'[gossip]\nmembers = ["{MEMBERS[0]}", "{MEMBERS[0]}"]\n', "at most 64 different peer ids"),
        (MINIMAL + "[gossip]\nencodin = 1\n", 'the nearest known one is "gossip.encoding"'),
        (MINIMAL + "[gossip]\nswap_interval_s = 0\n", "gossip.swap_interval_s = 0.0: must be above 0"),
        (MINIMAL + "[gossip]\nswap_interval_s = -1.5\n", "must be above 0"),
        (MINIMAL + '[admission]\nmode = "closed"\n', 'one of "open"'),
        ('bootstrap = ["a.example:4001"]\n' + MINIMAL, "multiaddrs that start with /ip4"),
        ('bootstrap = ["/ipv4/1.2.3.4"]\n' + MINIMAL, "multiaddrs that start with /ip4"),
        ('bootstrap = [""]\n' + MINIMAL, "multiaddrs that start with /ip4"),
        ('bootstrap = ["/dnsadr/a.example"]\n' + MINIMAL, "or names of files with one of these a line"),
        ('bootstrap = ["/tcp/4001"]\n' + MINIMAL, "multiaddrs that start with /ip4"),
        ("format = 2\n" + MINIMAL, "network.toml:1: format = 2: must be 1; a later p2pfed"),
        (MINIMAL.replace("lifts", "../lifts"), 'name = "../lifts": must be 1 to 64 letters'),
        (MINIMAL.replace("lifts", ""), 'name = "": must be 1 to 64 letters'),
        (MINIMAL.replace("owner/name", "package:smollm"), '"package:smollm": must be one of'),
        (MINIMAL.replace("owner/name", ""), "1 to 200 printable characters"),
        ("[model]\nbase = 'a/b'\n", "network.toml: name is missing and has no default"),
        ("name = 'a'\n", "network.toml: model.base is missing and has no default"),
        ("name = 'a'\n[model]\n", "network.toml:2: model.base is missing and has no default"),
        ("name = 'a'\nname = 'b'\n", "network.toml: not TOML: "),
        ("name = \n", "at line 1"),
        ("a = " + "[" * 5000, "network.toml: "),
        ("a = " + "1" * 5000, "network.toml: not TOML: "),
        ("a = 0x" + "f" * 5000 + "\n" + MINIMAL, "a = an integer of more than 64 bits: unknown key"),
        ("model = {base = 'a/b', bse = 1}\nname = 'a'\n", "network.toml:1: model.bse = 1: unknown key, the nearest"),
        ("name = 'a'\nmodel.base = 7\n", 'network.toml:2: model.base = 7: is not a text in "quotes"'),
        ("a = '" + "x" * 100 + "'", 'a = "' + "x" * 59 + "...: unknown key"),
    ],
    ids=range(54),
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    assert words in refused(text)


def test_node_files_say_what_is_wrong_as_well() -> None:
    assert refused_node("thread = 2\n") == 'node.toml:1: thread = 2: unknown key, the nearest known one is "threads"'
    assert "node.toml:2: device" in refused_node('mdns = true\ndevice = "gpu"\n')
    assert "threads = 0: must be within 1 to 1024" in refused_node("threads = 0\n")
    assert "mdns = 1: is not true or false" in refused_node("mdns = 1\n")
    assert "listen" in refused_node('listen = ["0.0.0.0:4001"]\n')
    assert "checkpoint_interval_s" in refused_node("checkpoint_interval_s = 0\n")
    assert 'the nearest is "float16"' in refused_node('encoding = "flot16"\n')
    assert "swap_day_bytes = -1: must be within 0" in refused_node("swap_day_bytes = -1\n")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, content, words in (
        (tmp_path / "none.toml", None, "No such file"),
        (tmp_path, None, "Is a directory"),
        (tmp_path / "latin", b'name = "caf\xe9"\n', "byte 11 is not UTF-8"),
        (tmp_path / "long", b"#" * 300_000, "more than 262144 bytes"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=words) as caught:
            load_network(path)
        assert str(path) in str(caught.value)


def test_line_ends_and_byte_order_marks_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b"# mine\r\nthreads = 4\r\n")
    assert load_node(path).threads == 4


def test_presets_hub_ids_and_folders() -> None:
    assert network_of_preset("lifts", "smollm2-135m").name == "lifts"
    assert network_of_preset("lifts", "owner/name").model.base == "owner/name"
    assert network_of_preset("lifts", "./folder").model.base == "./folder"
    with pytest.raises(ConfigError, match='the nearest preset is "prometheus-7b"'):
        network_of_preset("lifts", "promethus-7b")
