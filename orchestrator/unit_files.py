"""The files by which a ticket's unit is told more than `ticket@.service` says, and its timer.

The only module that writes them: rendered from checked values, compared byte for byte, put in place
by a rename. `50-mission-control.conf` is what `ticketctl apply` says, `60-ticketctl-set.conf` what
`ticketctl set` says, and wins where both name a limit; `override.conf`, which `systemctl --user edit`
writes, comes after both. A file under one of these names that does not begin with our mark is
somebody else's and is neither read nor written. systemd is told by the caller.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.config import Config
from orchestrator.errors import ConfigError, Conflict
from orchestrator.limits import DIRECT, KEYS, is_safe

MARK = "# Mission Control wrote this"
By = Literal["apply", "set"]
_NAMES: dict[By, str] = {"apply": "50-mission-control.conf", "set": "60-ticketctl-set.conf"}
_SAYS: dict[By, str] = {
    "apply": "for `ticketctl apply`, which writes it anew.",
    "set": "for `ticketctl set`; what stands here wins over 50-mission-control.conf.",
}
MAX_FILE_BYTES = 65_536
_SECTIONS = {name: key.section for name, key in KEYS.items()} | {DIRECT[0]: "Service"}
_FOLDER = re.compile(r"ticket@([1-9][0-9]{0,8})\.service\.d", re.ASCII)
_TIMER = re.compile(r"ticket@([1-9][0-9]{0,8})\.timer", re.ASCII)
_LINE = re.compile(r"([A-Za-z]+)=(.*)", re.ASCII)
TIMER_TEXT = """\
{mark} for `ticketctl apply`, which writes it anew.
[Unit]
Description=Mission Control: starts ticket {ticket}
Documentation=file:%h/.local/share/mission-control/docs/declare.md
PartOf=mc.target

[Timer]
{calendars}
# A machine that was off at that time does it when it is on again.
Persistent=yes
AccuracySec=1s

[Install]
WantedBy=mc.target
"""


def unit_folder(config: Config) -> Path:
    """Where the user manager looks first."""
    return config.config_dir.parent / "systemd" / "user"


def timer_name(ticket: int) -> str:
    """The timer that starts a ticket."""
    return f"ticket@{ticket}.timer"


@dataclass(frozen=True, slots=True)
class File:
    """A file of ours: where, and what it should hold; None: it should not be there."""

    path: Path
    text: str | None

    @property
    def is_right(self) -> bool:
        """Whether it is on disk as it should be, to the byte."""
        return read(self.path) == self.text

    def put(self) -> bool:
        """Makes it so; False: nothing had to be done.

        Raises:
            Conflict: something that is not ours is in its place.
            ConfigError: the file system refuses.
        """
        if self.is_right:
            return False
        try:
            if self.text is None:
                self.path.unlink()
                with suppress(OSError):  # others' drop-ins live there too
                    self.path.parent.rmdir() if self.path.suffix == ".conf" else None
            else:
                _replace(self.path, self.text)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}.") from None
        return True


def drop_in(config: Config, ticket: int, by: By, settings: Mapping[str, str]) -> File:
    """The drop-in of a ticket that says `settings`, names of `limits.KEYS` with checked values."""
    path = unit_folder(config) / f"ticket@{ticket}.service.d" / _NAMES[by]
    return File(path, render(by, settings) if settings else None)


def render(by: By, settings: Mapping[str, str]) -> str:
    """The text of a drop-in, always in the same order."""
    lines = [f"{MARK} {_SAYS[by]}"]
    for section in ("Unit", "Service"):
        said = [
            f"{name}={settings[name]}"
            for name, within in _SECTIONS.items()
            if within == section and name in settings
        ]
        lines += [f"[{section}]", *said] if said else []
    unsafe = [
        name for name, value in settings.items() if name not in _SECTIONS or not is_safe(value)
    ]
    if unsafe:
        raise AssertionError(f"not to be written into a unit: {unsafe}")
    return "\n".join(lines) + "\n"


def timer(config: Config, ticket: int, calendars: Sequence[str]) -> File:
    """The timer of a ticket; without a calendar there should be none."""
    text = timer_text(ticket, calendars) if calendars else None
    return File(unit_folder(config) / timer_name(ticket), text)


def timer_text(ticket: int, calendars: Sequence[str]) -> str:
    """What is in a timer of ours."""
    if not all(is_safe(calendar) and "%" not in calendar for calendar in calendars):
        raise AssertionError("not to be written into a unit")
    lines = "\n".join(f"OnCalendar={calendar}" for calendar in calendars)
    return TIMER_TEXT.format(mark=MARK, ticket=ticket, calendars=lines)


def timer_link(config: Config, ticket: int) -> Path:
    """What `systemctl --user enable` makes: the timer runs whenever Mission Control does."""
    return unit_folder(config) / "mc.target.wants" / timer_name(ticket)


def is_enabled(config: Config, ticket: int) -> bool:
    """Whether the timer of a ticket is started with mc.target."""
    return timer_link(config, ticket).is_symlink()


def enable_timer(config: Config, ticket: int, *, wanted: bool) -> bool:
    """`systemctl --user enable` or `disable`; False: it was so already."""
    link = timer_link(config, ticket)
    if link.is_symlink() == wanted:
        return False
    if wanted:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(unit_folder(config) / timer_name(ticket))
    else:
        link.unlink()
    return True


def read(path: Path) -> str | None:
    """A file of ours; None where there is none.

    Raises:
        Conflict: what is there is not ours.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    text = data.decode("utf-8", "replace")
    if not text.startswith(MARK):
        raise Conflict(
            f"{path} is in the way: Mission Control did not write it.",
            hint="Give it another name; one that sorts later wins.",
        )
    return text


def settings_in(text: str | None) -> dict[str, str]:
    """What a drop-in of ours says; what somebody wrote into it besides is not taken over."""
    found = (match for line in (text or "").split("\n") if (match := _LINE.fullmatch(line)))
    return {match[1]: match[2] for match in found if match[1] in _SECTIONS and is_safe(match[2])}


def settings_of(config: Config, ticket: int, by: By) -> dict[str, str]:
    """What the drop-in of a ticket says; nothing where it has none."""
    return settings_in(read(drop_in(config, ticket, by, {}).path))


def calendars_in(text: str | None) -> tuple[str, ...]:
    """When a timer of ours starts its ticket."""
    prefix = "OnCalendar="
    lines = (text or "").split("\n")
    return tuple(line.removeprefix(prefix) for line in lines if line.startswith(prefix))


def calendars_of(config: Config, ticket: int) -> tuple[str, ...]:
    """When the timer of a ticket starts it; nothing where it has none."""
    return calendars_in(read(timer(config, ticket, ()).path))


def tickets_with_files(config: Config) -> list[int]:
    """The tickets for which there is a drop-in folder, whoever made it, or a timer."""
    found = set()
    with suppress(FileNotFoundError):
        for entry in os.scandir(unit_folder(config)):
            if match := _FOLDER.fullmatch(entry.name) or _TIMER.fullmatch(entry.name):
                found.add(int(match[1]))
    return sorted(found)


def present(config: Config, ticket: int) -> Iterator[File]:
    """Every file of ours that a ticket has, as something that should go; others' are passed over."""
    files = [drop_in(config, ticket, by, {}) for by in _NAMES]
    for file in (*files, timer(config, ticket, ())):
        with suppress(Conflict):
            if not file.is_right:
                yield file


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # systemd reads *.conf, *.service, *.timer: this is none of them
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
