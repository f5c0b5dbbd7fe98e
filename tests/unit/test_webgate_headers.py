"""Header fields: what RFC 9112 calls one is read, all else refused before it is a request."""

from __future__ import annotations

import pytest

from tests.unit.gateway import Gateway
from webgate.headers import Headers


def test_fields_are_found_by_name() -> None:
    """Whatever its case; of several the first one, and all of them stay in the order they came in."""
    read = Headers([b"Host: box:3001\r\n", b"x-a:1\n", b"X-A: \t 2 \t\r\n", b"Empty:\r\n"])
    assert read.get("host") == "box:3001"
    assert read.get("X-A") == "1"
    assert read.get("empty") == ""
    assert read.get("other", "none") == "none"
    assert read.getheader("other") is None
    assert read.headers == ["Host: box:3001", "x-a: 1", "X-A: 2", "Empty: "]


def test_the_type_and_bytes_beyond_ascii() -> None:
    """As Latin-1, as WSGI wants them."""
    read = Headers([b"Content-Type: application/json; charset=utf-8\r\n", b"X: \xc3\xa4\r\n"])
    assert read.typeheader == "application/json; charset=utf-8"
    assert read.get("x") == "\u00c3\u00a4"
    assert Headers([]).typeheader is None


WRONG = {
    "folded": b"X: a\r\n b: c\r\n",
    "a blank before the colon": b"Host : box\r\n",
    "no colon": b"Host\r\n",
    "no name": b": box\r\n",
    "a control character": b"X: a\x00b\r\n",
    "a lone return": b"X: a\rContent-Length: 3\r\n",
    "two Hosts": b"Host: box\r\nHost: other\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 2\r\n",
    "a list of lengths": b"Content-Length: 2, 2\r\n",
    "a length with a sign": b"Content-Length: +2\r\n",
    "a length by Python": b"Content-Length: 1_0\r\n",
}


@pytest.mark.parametrize("lines", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_field_is_refused(lines: bytes) -> None:
    """Two servers that read one request differently are how requests get smuggled."""
    with pytest.raises(ValueError, match=r"."):
        Headers(lines.splitlines(keepends=True) if b"\rC" not in lines else [lines])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("end", [b"\r\n", b"\x01\r\n", b"\ry\r\n", b""])
@pytest.mark.parametrize("much", [b" ", b"\t", b"x ", b":", b"\xff"])
def test_a_long_line_takes_no_longer_than_it_is(much: bytes, end: bytes) -> None:
    """Before any login: 8 KB of whatever are read, or refused, at once."""
    line = b"X:" + much * (8000 // len(much)) + end
    if b"\x01" in end or b"\ry" in end:
        with pytest.raises(ValueError, match="no header field"):
            Headers([line])
    else:
        assert Headers([line]).get("x") is not None


@pytest.mark.parametrize("lines", WRONG.values(), ids=WRONG.keys())
def test_the_gateway_says_400(shared_gateway: Gateway, lines: bytes) -> None:
    """And closes; nothing of it is taken for a second request."""
    host = b"" if b"Host" in lines else f"Host: {shared_gateway.host}\r\n".encode()
    said = shared_gateway.raw(b"GET /healthz HTTP/1.1\r\n" + host + lines + b"\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1
