"""What an operator says is what the API hears, byte for byte, or it is refused: on both drivers."""

from __future__ import annotations

import json
import unicodedata
import uuid

import pytest

from tests.claude.conftest import API_LOG
from tests.machine.product import GATEWAY, STATE, TICKETCTL, Product

DRIVERS = ["claude", "claude_stream"]
LINE = "0123456789 abcdefghij naïve 漢字 👩‍👩‍👧 "


def sized(size: int) -> str:
    """A text of so many bytes, or a few less where a character would be cut."""
    text = (LINE * (size // len(LINE.encode()) + 1)).encode()[:size].decode(errors="ignore")
    return text.strip().ljust(10, ".")


TEXTS = {
    "one line": "just a line",
    "200 characters": sized(200),
    "5 KB": sized(5_000),
    "100 KB": sized(100_000),
    "1 MB": sized(999_000),
    "many lines": "\n".join(f"line {n} of many, long enough to be pasted" for n in range(400)),
    "blank lines": "first\n\n\n\nafter three blank lines\n  indented",
    "/": "/clear is no command here",
    "/ alone": "/compact",
    "!": "!touch /tmp/by-bang",
    "#": "# remember this",
    "@": "@README is a file",
    "-": "- a list, or an option",
    "--": "--help",
    ";": "; begins and ends with it ;",
    "\\": "ends with a backslash \\",
    "lines and \\": "two lines\nthe last ends with \\",
    "quotes": "`x` $(y) #{z} 'a' \"b\" %d ${HOME} ~ * ? [a-z] {1,2}",
    "emoji": "👩‍👩‍👧 🏳️‍🌈 e\u0301 \u202ertl \ufeff漢字",
    "?": "? is help in some terminals",
}


@pytest.fixture(scope="module", params=DRIVERS)
def ticket(request: pytest.FixtureRequest, product: Product) -> int:
    """A worker that has answered its first prompt."""
    number = product.new(
        "messages", "--prompt", f"begin {request.param}", "--driver", request.param
    )
    product.ctl("start", str(number))
    settled(product, number)
    return number


def settled(product: Product, ticket: int) -> None:
    """Waits for idle."""
    product.machine.wait_for(
        lambda: product.show(ticket)["turn_state"] == "idle", what="an idle worker", timeout=90
    )


def heard(product: Product) -> list[str]:
    """The last text of each request of a turn; the CLI's errands on the side offer no tools."""
    entries = [json.loads(row) for row in product.read(API_LOG).splitlines()]
    return [str(entry["last"]) for entry in entries if entry.get("last") and entry.get("tools")]


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_arrives_byte_for_byte(product: Product, ticket: int, name: str) -> None:
    """Exactly one request ends with exactly that text, marked so that no other test's counts."""
    mark = uuid.uuid4().hex[:8]
    text = TEXTS[name]
    # The mark stands where it changes neither end of the text.
    middle = len(text) // 2 if " " in text else 2
    text = f"{text[:middle]}{mark}{text[middle:]}"
    done = product.machine.run([TICKETCTL, "send", str(ticket)], input=text)
    message = int(done.stdout)
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) not in {"queued", "sent"},
        what="an outcome", timeout=120,
    )  # fmt: skip
    assert product.outcome(ticket, message) == "confirmed", product.screen(ticket)
    settled(product, ticket)
    # Claude Code's own: what it would run instead of reading it gets a blank in front, and the box of
    # its TUI composes accents.
    tui = product.show(ticket)["driver"] == "claude"
    expected = f" {text}" if text.startswith(("/", "!") if tui else "/") else text
    expected = unicodedata.normalize("NFC", expected) if tui else expected
    assert [h for h in heard(product) if mark in h] == [expected]
    assert product.machine.run(["test", "-e", "/tmp/by-bang"], check=False).returncode


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("before \x1b[201~ after", "U+001B"),
        ("before \x00 after", "U+0000"),
        ("before \x9b201~ after", "U+009B"),
        ("before \x03 after", "U+0003"),
        ("before \x7f after", "U+007F"),
        ("   \n ", "empty"),
        ("x" * 1_000_001, "at most 1000000"),
    ],
)
def test_a_text_that_cannot_arrive_is_refused_with_the_reason(
    product: Product, ticket: int, text: str, says: str
) -> None:
    """Before there is a row, by ticketctl and by the gateway; nothing reaches the worker."""
    before = product.ctl("queue", str(ticket), "-n", "1000", "--json").stdout
    done = product.machine.run([TICKETCTL, "send", str(ticket)], input=text, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    token = product.read(f"{STATE}/token").strip()
    program = (
        "import json, sys, urllib.request as u, urllib.error as e\n"
        "asked = u.Request(sys.argv[1], sys.stdin.buffer.read(), {'Authorization': 'Bearer '"
        " + sys.argv[2], 'Content-Type': 'application/json'})\n"
        "try: u.urlopen(asked)\n"
        "except e.HTTPError as error: print(error.code, error.read().decode())\n"
    )
    argv = ["python3", "-c", program, f"{GATEWAY}/api/ticket/{ticket}/input", token]
    answer = product.machine.run(argv, input=json.dumps({"text": text})).stdout
    assert answer.startswith(("400", "413")), answer
    assert says in answer or answer.startswith("413")
    assert product.ctl("queue", str(ticket), "-n", "1000", "--json").stdout == before
