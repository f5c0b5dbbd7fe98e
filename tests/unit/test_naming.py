"""naming.py: which text is a ticket's number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InvalidInput
from orchestrator.naming import MAX_TICKET, ticket_id

HOSTILE = [
    "",
    "0",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e9",
    "9999999999",
    "1" * 30,
    "../..",
    ";rm",
    "12\n",
    "1 ",
    "٤٢",
    "\N{MATHEMATICAL DOUBLE-STRUCK DIGIT ONE}",
    "%i",
    "x",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_ticket_number_is_refused(text: str) -> None:
    """Anything but 1 to 999999999 in ASCII digits is InvalidInput."""
    with pytest.raises(InvalidInput):
        ticket_id(text)


@given(st.integers(min_value=1, max_value=MAX_TICKET))
def test_every_ticket_number_is_taken(number: int) -> None:
    """1 to 999999999 come out as they went in."""
    assert ticket_id(str(number)) == number


@given(st.text(max_size=12))
def test_no_text_becomes_two_different_things(text: str) -> None:
    """Whatever is accepted is the one way to write that number."""
    try:
        number = ticket_id(text)
    except InvalidInput:
        return
    assert text == str(number)
