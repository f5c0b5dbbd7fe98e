"""limits.py: only what is on the list, and only values that mean nothing to a unit file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import limits
from orchestrator.errors import InvalidInput
from orchestrator.limits import INFINITY, KEYS

GOOD = [
    ("MemoryMax", "2G", 2 << 30),
    ("MemoryMax", 1_048_576, 1 << 20),
    ("MemoryMax", "infinity", INFINITY),
    ("MemoryHigh", "75%", None),
    ("MemorySwapMax", "0", 0),
    ("CPUQuota", "150%", 1_500_000),
    ("CPUQuota", "12.5%", 125_000),
    ("CPUWeight", "idle", 0),
    ("CPUWeight", 10_000, 10_000),
    ("IOWeight", "1", 1),
    ("TasksMax", 500, 500),
    ("TasksMax", "60%", None),
    ("RuntimeMaxSec", 90, 90_000_000),
    ("RuntimeMaxSec", "2h 30min", 9_000_000_000),
    ("RuntimeMaxSec", "2h30min", 9_000_000_000),
]
BAD = [
    ("MemoryMax", "2"),  # meant to be 2G
    ("MemoryMax", "0"),
    ("MemoryMax", "2X"),
    ("MemoryMax", "-1G"),
    ("MemoryMax", "9" * 30),
    ("MemoryMax", "101%"),
    ("MemoryMax", "0%"),
    ("MemoryMax", "2G\nExecStart=/bin/sh"),
    ("MemoryMax", "2G\n"),
    ("MemoryMax", "%h"),
    ("MemoryMax", "٢G"),
    ("MemoryMax", True),
    ("MemoryMax", 2.5),
    ("MemoryMax", ["2G"]),
    ("CPUQuota", "50"),
    ("CPUQuota", "0%"),
    ("CPUWeight", "0"),
    ("IOWeight", "idle"),
    ("IOWeight", "10001"),
    ("TasksMax", "0"),
    ("TasksMax", "many"),
    ("RuntimeMaxSec", "0"),
    ("RuntimeMaxSec", "2 fortnights"),
    ("RuntimeMaxSec", "1" * 40 + "x"),
    ("RuntimeMaxSec", ""),
]


@pytest.mark.parametrize(("name", "value", "number"), GOOD)
def test_a_value_is_what_systemd_will_have(name: str, value: object, number: int | None) -> None:
    """The number of the property in force, where it does not depend on the machine."""
    key = KEYS[name]
    assert limits.number_of(key, limits.checked(key, value)) == number


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_is_no_value_is_refused(name: str, value: object) -> None:
    """With the key, a reason and an example."""
    with pytest.raises(InvalidInput, match=name) as refused:
        limits.checked(KEYS[name], value)
    assert f"{name}=" in refused.value.hint
    assert "\n" not in refused.value.message


@given(st.sampled_from(limits.LIMITS), st.text(max_size=60))
def test_nothing_gets_through_that_a_unit_file_would_obey(key: limits.Key, text: str) -> None:
    """Whatever is typed: refused, or letters, digits and a few marks in one line."""
    try:
        said = limits.checked(key, text)
    except InvalidInput:
        return
    assert limits.is_safe(said)
    assert said.isascii()
    assert not set(said) & set("\n\r\\\"'$;#[]=")


@given(st.sampled_from(limits.LIMITS), st.integers(0, 1 << 50))
def test_a_number_in_words_is_that_number(key: limits.Key, number: int) -> None:
    """What is shown can be typed back."""
    number *= {"share": 100, "span": 1_000_000}.get(key.kind, 1)  # whole hundredths, whole seconds
    words = limits.in_words(key, number)
    try:
        limits.checked(key, words)
    except InvalidInput:
        return  # a number of systemd's that nobody may choose
    assert limits.number_of(key, words) == number


def test_an_unknown_key_is_told_its_neighbour() -> None:
    """Also where only the case differs; what is far from everything gets the list."""
    for typed, meant in (("MemoryMx", "MemoryMax"), ("memorymax", "MemoryMax"), ("after", "After")):
        with pytest.raises(InvalidInput) as refused:
            limits.key_named(typed)
        assert refused.value.hint == f"Did you mean {meant}?"
    with pytest.raises(InvalidInput, match="nothing that can be set") as refused:
        limits.key_named("ExecStartPre")
    with pytest.raises(InvalidInput) as refused:
        limits.key_named("\x1b[31m\n" * 100)
    assert "\x1b" not in refused.value.message
    assert refused.value.hint.startswith("Known: After")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alert",
        "../alert.service",
        "a b.service",
        "alert.service\nExecStart=x",
        "%i.service",
        "alert.timer",
        "-.service",
        "x" * 300 + ".service",
    ],
)
def test_what_is_no_unit_is_refused(text: str) -> None:
    """Services and targets by a plain name; no path, no specifier."""
    with pytest.raises(InvalidInput):
        limits.unit_named(text, 7)


def test_a_template_gets_the_number() -> None:
    """Which instance failed is in the name of the unit that is told."""
    assert limits.unit_named("alert@.service", 7) == "alert@7.service"
    assert limits.unit_named("alert@ops.service", 7) == "alert@ops.service"
    assert limits.unit_named("some.target", 7) == "some.target"
