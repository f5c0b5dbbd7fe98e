"""unit_files.py: byte for byte, atomically, and never a file that is somebody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import limits, unit_files
from orchestrator.config import Config
from orchestrator.errors import Conflict
from orchestrator.unit_files import drop_in, render, settings_in, timer

SIZES = st.integers(1, 4096).map(lambda n: f"{n}M")
UNITS = st.lists(st.integers(1, 999), min_size=1, max_size=4).map(
    lambda numbers: " ".join(f"ticket@{n}.service" for n in numbers)
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={"After": UNITS, "Requires": UNITS, "OnFailure": st.just("alert@7.service"),
              "MemoryMax": SIZES, "MemoryHigh": SIZES, "CPUQuota": st.just("12.5%"),
              "TasksMax": st.just("infinity"), "RuntimeMaxSec": st.just("2h 30min")},
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A home of its own."""
    return Config(config_dir=tmp_path / "mission-control")


@given(SETTINGS)
def test_what_was_written_is_read(settings: dict[str, str]) -> None:
    """A drop-in of ours says the same when it is read, in whatever order it was made."""
    text = render("apply", settings)
    assert settings_in(text) == settings
    assert render("apply", dict(reversed(settings.items()))) == text


@given(st.text(max_size=30))
def test_a_value_that_was_not_checked_is_never_written(text: str) -> None:
    """The last look: a line, a specifier, a quote stops everything. It would be our own mistake."""
    if limits.is_safe(text):
        return
    with pytest.raises(AssertionError):
        render("set", {"MemoryMax": text})
    with pytest.raises(AssertionError):
        unit_files.timer_text(7, [text])


def test_a_drop_in_comes_and_goes(config: Config) -> None:
    """Written once; again nothing happens; empty, it goes and its folder with it."""
    file = drop_in(config, 7, "apply", {"MemoryMax": "2G"})
    assert file.put()
    stamp = file.path.stat()
    assert not file.put()
    assert (file.path.stat().st_mtime_ns, file.path.stat().st_ino) == (
        stamp.st_mtime_ns,
        stamp.st_ino,
    )
    assert [p.name for p in file.path.parent.iterdir()] == ["50-mission-control.conf"]
    assert unit_files.tickets_with_files(config) == [7]
    assert drop_in(config, 7, "apply", {}).put()
    assert not file.path.parent.exists()
    assert not drop_in(config, 7, "apply", {}).put()


def test_what_an_operator_wrote_stays(config: Config) -> None:
    """systemctl edit's override.conf is neither read nor moved, and keeps the folder."""
    file = drop_in(config, 7, "apply", {"MemoryMax": "2G"})
    file.path.parent.mkdir(parents=True)
    own = file.path.with_name("override.conf")
    own.write_text("[Service]\nMemoryMax=1G\n")
    file.put()
    drop_in(config, 7, "apply", {}).put()
    assert own.read_text() == "[Service]\nMemoryMax=1G\n"
    assert [p.name for p in own.parent.iterdir()] == ["override.conf"]


def test_a_file_in_our_place_that_is_not_ours_is_left(config: Config) -> None:
    """It is said, and nothing is written or removed."""
    for file in (drop_in(config, 7, "apply", {}), timer(config, 7, ["daily"])):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_text("[Service]\n")
        with pytest.raises(Conflict, match="in the way"):
            file.put()
        with pytest.raises(Conflict, match="in the way"):
            replace(file, text=None).put()
        assert file.path.read_text() == "[Service]\n"


def test_what_was_edited_is_written_anew(config: Config) -> None:
    """To the byte; what was added to a file of ours by hand is not kept."""
    file = drop_in(config, 7, "apply", {"MemoryMax": "2G"})
    file.put()
    right = file.path.read_bytes()
    file.path.write_bytes(right + b"ExecStartPre=/bin/true\n")
    assert unit_files.settings_of(config, 7, "apply") == {"MemoryMax": "2G"}
    assert file.put()
    assert file.path.read_bytes() == right


def test_a_killed_write_leaves_the_old_file(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename did not happen: the old text is whole, and nothing lies beside it."""
    drop_in(config, 7, "apply", {"MemoryMax": "2G"}).put()

    def die(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unit_files.os, "fsync", die)
    with pytest.raises(unit_files.ConfigError, match="No space left"):
        drop_in(config, 7, "apply", {"MemoryMax": "3G"}).put()
    assert unit_files.settings_of(config, 7, "apply") == {"MemoryMax": "2G"}
    assert len(list((unit_files.unit_folder(config) / "ticket@7.service.d").iterdir())) == 1


def test_a_timer_and_its_link(config: Config) -> None:
    """Each expression is a line; it is enabled as systemctl would, and disabled."""
    file = timer(config, 7, ("Mon..Fri 07:00", "Sat 09:00"))
    file.put()
    assert unit_files.calendars_of(config, 7) == ("Mon..Fri 07:00", "Sat 09:00")
    assert unit_files.enable_timer(config, 7, wanted=True)
    assert not unit_files.enable_timer(config, 7, wanted=True)
    assert unit_files.timer_link(config, 7).readlink() == file.path
    assert unit_files.enable_timer(config, 7, wanted=False)
    assert not unit_files.is_enabled(config, 7)


def test_what_is_present_is_ours_alone(config: Config) -> None:
    """For whoever takes all of it away: neither what is not there nor what is somebody else's."""
    assert list(unit_files.present(config, 7)) == []
    drop_in(config, 7, "set", {"MemoryMax": "2G"}).put()
    timer(config, 7, ["daily"]).put()
    drop_in(config, 7, "apply", {}).path.write_text("[Service]\n")
    assert [f.path.name for f in unit_files.present(config, 7)] == [
        "60-ticketctl-set.conf", "ticket@7.timer",
    ]  # fmt: skip
