"""What setup looks at before the first change, and how units find the program."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import config as configuration
from orchestrator import doctor, doctor_machine, install_program, postgres
from orchestrator.config import Config
from orchestrator.doctor_machine import Check
from orchestrator.errors import ConfigError, Conflict
from orchestrator.install_report import Report

INSTALL_SH = (Path(__file__).resolve().parents[2] / "install.sh").read_text(encoding="utf-8")
FINE = Check("user namespaces", "ok", "not limited")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test's own, with a program in a virtual environment that pipx made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    venv = tmp_path / ".local/share/pipx/venvs/mission-control"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/ticketctl").write_text("")
    monkeypatch.setattr(sys, "prefix", str(venv))
    return tmp_path


def settings(home: Path) -> Config:
    """As setup finds them."""
    return configuration.load({"HOME": str(home)})


def told(home: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """How many steps it took to have units and shells find the program."""
    report = Report(dry_run=False)
    install_program.ensure_program(report, settings(home))
    capsys.readouterr()
    return report.changed


def test_units_find_a_program_that_is_elsewhere(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a link; a second time changes nothing, another environment moves it, a dangling one too."""
    link = home / ".local/share/mission-control/venv"
    assert told(home, capsys) == 2
    assert link.readlink() == Path(sys.prefix)
    assert (home / ".local/bin/ticketctl").resolve() == Path(sys.prefix) / "bin/ticketctl"
    assert told(home, capsys) == 0
    monkeypatch.setattr(sys, "prefix", str(link))  # as the units start it
    assert told(home, capsys) == 0
    other = home / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin/ticketctl").write_text("")
    monkeypatch.setattr(sys, "prefix", str(other))
    assert told(home, capsys) == 2
    link.unlink()
    link.symlink_to(home / "gone")
    assert told(home, capsys) == 1
    assert link.readlink() == other


def test_pipx_and_install_sh_do_not_mix(home: Path) -> None:
    """Where install.sh's program is, another one is refused, and nothing has changed."""
    venv = home / ".local/share/mission-control/venv"
    venv.mkdir(parents=True)
    with pytest.raises(Conflict, match=r"install\.sh made") as refused:
        install_program.ensure_program(Report(dry_run=False), settings(home))
    assert f"{venv}/bin/ticketctl setup --uninstall" in refused.value.hint
    assert not venv.is_symlink()
    assert not (home / ".local/bin/ticketctl").exists()
    assert install_program.is_ours(settings(home))


def test_a_program_outside_of_an_environment_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distribution's own Python is no place that units could name."""
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    with pytest.raises(ConfigError, match="virtual environment"):
        install_program.ensure_program(Report(dry_run=False), settings(home))


def test_what_is_missing_is_said_at_once_with_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it together, before anything is changed; a dry run says it and goes on."""
    monkeypatch.setattr(doctor, "user_namespaces", lambda: FINE)
    monkeypatch.setattr(install_program, "_PATH", str(home))
    monkeypatch.setattr(postgres, "_DEBIAN", home)
    monkeypatch.setattr(install_program, "BUS_UNIT", home / "dbus.socket")
    monkeypatch.setattr(doctor_machine, "user_bus", lambda *_: replace(FINE, name="user bus"))
    with pytest.raises(ConfigError) as refused:
        install_program.ensure_possible(Report(dry_run=False), settings(home))
    names = "git tmux bubblewrap zstd logrotate dbus-user-session postgresql"
    assert refused.value.message == f"Not installed: {names}."
    assert f"--no-install-recommends {names}'; then: ticketctl setup" in refused.value.hint
    assert install_program.NO_CLUSTER in refused.value.hint
    install_program.ensure_possible(Report(dry_run=True), settings(home))
    assert names in capsys.readouterr().out
    config = settings(home)
    own = replace(config, database=replace(config.database, url="postgresql:///mine"))
    with pytest.raises(ConfigError) as without:
        install_program.ensure_possible(Report(dry_run=False), own)
    assert "postgresql" not in f"{without.value}"


def test_what_setup_asks_for_is_what_install_sh_brings() -> None:
    """The packages by name, and the line that keeps Debian from making a cluster of its own."""
    brought = INSTALL_SH.partition("packages=(")[2].partition(")")[0].split()
    assert {*install_program.PROGRAMS.values(), "dbus-user-session", "postgresql"} <= set(brought)
    assert f'"{install_program.NO_CLUSTER}"' in INSTALL_SH


def test_services_that_cannot_be_confined_are_said_before_they_are_started(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ubuntu 24.04 as it comes: one sentence, and the command that mends it."""
    monkeypatch.setattr(install_program, "_missing", lambda _: "")
    monkeypatch.setattr(doctor_machine, "user_bus", lambda *_: replace(FINE, name="user bus"))
    found = Check("user namespaces", "bad", "x = 1: the services get none", "sudo mend")
    monkeypatch.setattr(doctor, "user_namespaces", lambda: found)
    with pytest.raises(ConfigError, match="cannot be confined: x = 1") as refused:
        install_program.ensure_possible(Report(dry_run=False), settings(home))
    assert refused.value.hint == "sudo mend; then: ticketctl setup"


def test_the_identity_changes_with_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services are restarted for a library that was upgraded, not for pipx's own pip."""
    before = install_program.identity()
    assert install_program.identity() == before
    every = list(install_program.metadata.distributions())
    some = [d for d in every if d.name.lower() != "pip"]
    monkeypatch.setattr(install_program.metadata, "distributions", lambda: some)
    assert install_program.identity() == before
    fewer = [d for d in some if d.name.lower() != "click"]
    monkeypatch.setattr(install_program.metadata, "distributions", lambda: fewer)
    assert install_program.identity() != before
