"""What a ticket's unit may be told besides `ticket@.service`: an allow-list, with checked values.

Pure. A value that passed here holds only letters, digits and a few marks that mean nothing to a
unit file, so that no line, specifier or quote gets into one. Where it is written is `unit_files`'.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import InvalidInput

Kind = Literal["size", "share", "count", "weight", "span", "units"]
MIN_SIZE_BYTES = 1 << 20  # "2" was meant to be 2G
MAX_SIZE_BYTES = 1 << 60
MAX_SHARE_PERCENT = 100_000  # a thousand processors
MAX_SPAN_S = 10 * 366 * 86400
MAX_UNITS = 100  # in one key
MAX_SHOWN_CHARS = 40
INFINITY = 2**64 - 1  # on D-Bus


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A setting of a unit that an operator may choose for a ticket."""

    name: str  #: as systemd spells it
    section: Literal["Unit", "Service"]
    kind: Kind
    on_bus: str = ""  #: the property that holds the value in force; a number each
    example: str


_ALL = (
    Key(name="After", section="Unit", kind="units", example="41"),
    Key(name="Requires", section="Unit", kind="units", example="41"),
    Key(name="OnFailure", section="Unit", kind="units", example="alert@.service"),
    Key(name="MemoryMax", section="Service", kind="size", on_bus="MemoryMax", example="2G"),
    Key(name="MemoryHigh", section="Service", kind="size", on_bus="MemoryHigh", example="1536M"),
    Key(name="MemorySwapMax", section="Service", kind="size", on_bus="MemorySwapMax", example="0"),
    Key(name="CPUQuota", section="Service", kind="share", on_bus="CPUQuotaPerSecUSec",
        example="150%"),
    Key(name="CPUWeight", section="Service", kind="weight", on_bus="CPUWeight", example="50"),
    Key(name="IOWeight", section="Service", kind="weight", on_bus="IOWeight", example="50"),
    Key(name="TasksMax", section="Service", kind="count", on_bus="TasksMax", example="500"),
    Key(name="RuntimeMaxSec", section="Service", kind="span", on_bus="RuntimeMaxUSec",
        example="2h"),
)  # fmt: skip
KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
#: follows from OnFailure=: since systemd 254 that is started at each crash, unless a restart goes
#: from one life of a unit to the next directly; then, as before 254, when the unit failed for good
DIRECT = ("RestartMode", "direct")
DIRECT_SINCE = 254
#: those that hold something in check; the others order units
LIMITS = tuple(key for key in _ALL if key.section == "Service")

_SIZE = re.compile(r"([0-9]{1,19})([KMGTP]?)", re.ASCII)
_FACTOR = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_PERCENT = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,2}))?%", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)
_SPAN_PART = re.compile(r" ?([0-9]{1,9}) ?(sec|s|min|h|d|w)(?![a-z])", re.ASCII)
_SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_UNIT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9:_.-]{0,99}(?:@[A-Za-z0-9:_.-]{0,99})?\.(?:service|target)", re.ASCII
)


def key_named(name: str) -> Key:
    """One key.

    Raises:
        InvalidInput: it is not on the list; the hint has the nearest one.
    """
    if name not in KEYS:
        raise InvalidInput(
            f"{shown(name)} is nothing that can be set for a ticket.",
            hint=did_you_mean(name, KEYS),
        )
    return KEYS[name]


def did_you_mean(given: str, known: Mapping[str, object]) -> str:
    """A hint with the nearest of the known names, or with all of them."""
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower()[:MAX_SHOWN_CHARS], lower, n=1)
    return f"Did you mean {lower[near[0]]}?" if near else f"Known: {', '.join(known)}."


def shown(text: object) -> str:
    """What somebody typed, for a sentence: short, in one line, nothing a terminal would obey."""
    quoted = ascii(text) if not (isinstance(text, str) and text.isprintable()) else repr(text)
    return quoted if len(quoted) <= MAX_SHOWN_CHARS else f"{quoted[:MAX_SHOWN_CHARS]}…"


def checked(key: Key, value: object) -> str:
    """The value as a unit file of ours says it; not for keys that name units.

    Raises:
        InvalidInput: it is none; the hint has an example.
    """
    hint = f"As in {key.name}={key.example}"
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidInput(f"{key.name} is text or a whole number.", hint=hint)
    text = " ".join(str(value).split(" ")).strip(" ")
    try:
        number_of(key, text)
    except ValueError as error:
        raise InvalidInput(f"{key.name}={shown(value)}: {error}.", hint=hint) from None
    return text


def number_of(key: Key, text: str) -> int | None:
    """What systemd's own property says when this value is in force; None: that depends on the machine.

    Raises:
        ValueError: it is no value of that kind; the sentence says why.
    """
    if key.kind == "size":
        return _size(key, text)
    if key.kind == "share":
        hundredths = _percent(text, MAX_SHARE_PERCENT)
        if hundredths is None:
            raise ValueError("a share of processors is a percentage")
        return hundredths * 100  # microseconds a second
    if key.kind == "weight":
        if text == "idle" and key.name == "CPUWeight":
            return 0
        if not _COUNT.fullmatch(text) or not 1 <= int(text) <= 10_000:
            raise ValueError("a weight is 1 to 10000")
        return int(text)
    if key.kind == "count":
        if text == "infinity":
            return INFINITY
        if _percent(text, 100) is not None:
            return None
        if not _COUNT.fullmatch(text) or int(text) < 1:
            raise ValueError("that is no number of tasks")
        return int(text)
    return _span(text)


def _size(key: Key, text: str) -> int | None:
    if text == "infinity":
        return INFINITY
    if _percent(text, 100) is not None:
        return None
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError("that is no size")
    size = int(match[1]) * _FACTOR[match[2]]
    if size == 0 and key.name == "MemorySwapMax":
        return 0
    if size < MIN_SIZE_BYTES:
        raise ValueError(f"{size} bytes hold no agent")
    if size > MAX_SIZE_BYTES:
        raise ValueError("no machine has as much")
    return size


def _percent(text: str, most: int) -> int | None:
    """Hundredths of a percent; None where it is no percentage at all."""
    match = _PERCENT.fullmatch(text)
    if not match:
        return None
    hundredths = int(match[1]) * 100 + int((match[2] or "0").ljust(2, "0"))
    if not 0 < hundredths <= most * 100:
        raise ValueError(f"that is not more than 0% and at most {most}%")
    return hundredths


def _span(text: str) -> int:
    if text == "infinity":
        return INFINITY
    seconds, at = 0, 0
    if _COUNT.fullmatch(text):
        seconds, at = int(text), len(text)
    while match := _SPAN_PART.match(text, at):
        seconds, at = seconds + int(match[1]) * _SECONDS[match[2]], match.end()
    if at < len(text) or not text:
        raise ValueError("that is no span of time")
    if not 0 < seconds <= MAX_SPAN_S:
        raise ValueError("that is out of range")
    return seconds * 1_000_000


def in_words(key: Key, number: int) -> str:
    """A number of systemd's as one would write it."""
    if number == INFINITY:
        return "infinity"
    if key.kind == "size":
        for unit in ("P", "T", "G", "M", "K"):
            if number and number % _FACTOR[unit] == 0:
                return f"{number // _FACTOR[unit]}{unit}"
        return str(number)
    if key.kind == "share":
        return f"{_plain(number / 10_000)}%"
    if key.kind == "span":
        return f"{_plain(number / 1_000_000)}s"
    return "idle" if key.name == "CPUWeight" and number == 0 else str(number)


def _plain(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def unit_named(text: str, ticket: int) -> str:
    """A unit's name as somebody wrote it; `alert@.service` gets the ticket's number.

    Raises:
        InvalidInput: it is no name of a service or target.
    """
    if not is_unit(text):
        raise InvalidInput(
            f"{shown(text)} is no unit.", hint="As in alert.service, alert@.service, some.target"
        )
    return text.replace("@.", f"@{ticket}.")


def is_unit(text: str) -> bool:
    """Whether it can be the name of a service or a target."""
    return _UNIT.fullmatch(text) is not None


def is_safe(text: str) -> bool:
    """Whether a value is made of what means nothing to a unit file; the last look before writing."""
    return re.fullmatch(r"[A-Za-z0-9@:_.,%*/~+ -]{1,12000}", text, re.ASCII) is not None and (
        "%" not in text or re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,2})?%", text, re.ASCII) is not None
    )
