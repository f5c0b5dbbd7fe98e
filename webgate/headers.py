"""The header fields of a request, as gevent's WSGI server asks for them.

Its own reader goes through the standard library's parser of e-mail, which takes the better part of a
keystroke's time and takes much that is no HTTP. This one takes what RFC 9112 calls a field line, and
refuses the rest: folded lines, names that are no token, control characters, a second length or Host.
"""

from __future__ import annotations

import re

# A value's bytes beyond ASCII are opaque (RFC 9110, 5.5) and stay as they are, as Latin-1.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ONCE = frozenset({"host", "content-length", "transfer-encoding"})


class Headers:
    """What pywsgi reads of a request: `get`, and the lines themselves.

    Args:
        lines: as they came, each with its line end, without the empty one.

    Raises:
        ValueError: that is no HTTP.
    """

    status = ""  # pywsgi: what was wrong; here that is raised

    def __init__(self, lines: list[bytes]) -> None:
        self.headers: list[str] = []
        self._fields: dict[str, str] = {}
        for line in lines:
            # by hand, for a pattern with blanks before, in and after a value takes hours over 8 KB of them
            raw, colon, rest = line.removesuffix(b"\n").removesuffix(b"\r").partition(b":")
            if not colon or not _NAME.fullmatch(raw) or _CONTROL.search(rest):
                raise ValueError("that is no header field")
            name, value = raw.decode("ascii"), rest.strip(b" \t").decode("latin-1")
            lower = name.lower()
            if lower in self._fields and lower in _ONCE:
                raise ValueError(f"a second {name}")
            if lower == "content-length" and not (value.isascii() and value.isdecimal()):
                raise ValueError("a length that is no number")
            self.headers.append(f"{name}: {value}")
            self._fields.setdefault(lower, value)

    @property
    def typeheader(self) -> str | None:
        """Content-Type."""
        return self._fields.get("content-type")

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first field of that name."""
        return self._fields.get(name.lower(), default)

    getheader = get
