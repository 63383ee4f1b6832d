"""`p2pfed doctor`: each check finds what it is there for."""

import socket
from pathlib import Path

import pytest

from p2pfed.doctor import device
from p2pfed.doctor.echo import Echo
from p2pfed.doctor.finding import Finding, Level
from p2pfed.doctor.multicast import Heard, check_multicast, multicast_findings
from p2pfed.errors import ExitCode
from tests.cli.shell import Shell


def level(findings: list[Finding], subject: str) -> Level:
    return next(each.level for each in findings if each.subject == subject)


def test_a_healthy_device(tmp_path: Path) -> None:
    assert [each.level for each in device.check_python()] == [Level.OK]
    assert [each.level for each in device.check_clock()] == [Level.OK]
    assert level(list(device.check_packages()), "libp2p") is Level.OK
    assert level(list(device.check_home(tmp_path / "new" / "home")), "state folder") is Level.OK
    assert not (tmp_path / "new").exists(), "looking changes nothing"
    assert level(list(device.check_ports()), "listening") is Level.OK


def test_a_clock_without_a_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.time, "time", lambda: 0.0)
    (finding,) = device.check_clock()
    assert finding.level is Level.WARN and "1970-01-01" in finding.message and finding.remedy


def test_a_state_folder_others_can_read(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    tmp_path.chmod(0o755)
    assert Level.WARN in [each.level for each in device.check_home(tmp_path)]
    tmp_path.chmod(0o700)
    assert Level.WARN not in [each.level for each in device.check_home(tmp_path) if each.subject == "state folder"]


def test_a_state_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = device.check_home(tmp_path / "file" / "home")
    assert (finding.level, finding.exit_code) == (Level.FAIL, ExitCode.DISK)


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "DISK_FAIL_BYTES", 10**18)
    assert level(list(device.check_home(tmp_path)), "disk") is Level.FAIL


def test_missing_packages_make_a_bootstrap_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "TRAINING_PACKAGES", ("p2pfed_has_no_such_package",))
    finding = list(device.check_packages())[-1]
    assert finding.level is Level.WARN and "pip install 'p2pfed[node]'" in finding.remedy


def test_multicast_says_why_not() -> None:
    assert all(each.level in (Level.OK, Level.WARN) for each in check_multicast())
    (silent,) = multicast_findings(Heard([Echo("eth0", 4, sent=2)]))
    assert silent.level is Level.WARN and "224.0.0.251" in silent.remedy and "--bootstrap" in silent.remedy
    (refused,) = multicast_findings(Heard([Echo("eth0", 6, problem="Operation not permitted")]))
    assert "Operation not permitted" in refused.message and "ff02::fb" in refused.remedy
    (nothing,) = multicast_findings(Heard())
    assert "no network interface is up" in nothing.message and "node.toml" in nothing.remedy


def test_the_bootstrap_port_in_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        monkeypatch.setattr(device, "BOOTSTRAP_PORT", other.getsockname()[1])
        assert level(list(device.check_ports()), "port of a bootstrap peer") is Level.WARN


@pytest.mark.slow
@pytest.mark.model
def test_the_whole_of_it(shell: Shell, network: Path, tmp_path: Path) -> None:
    found = shell("doctor", "--network", network, "--home", tmp_path / "home", "--format", "json")
    subjects = {each["subject"] for each in found.json}
    assert {"python", "clock", "disk", "state folder", "torch", "4-bit weights", "memory"} <= subjects
    assert found.code == 0, found.out


@pytest.mark.slow
@pytest.mark.model
def test_a_failure_is_the_exit_code(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = shell("doctor", "--home", tmp_path / "file" / "home")
    assert result.code == ExitCode.DISK
    assert "fail  state folder" in result.out and "      -> " in result.out
    assert "checks failed: state folder" in result.err
