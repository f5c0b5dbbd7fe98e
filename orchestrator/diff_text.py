"""Read what `git diff --raw --patch` printed. Pure: text in, records out.

Between `git_view` and `diff`. Content cannot be taken for a header: the lines of a hunk are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

_RAW = re.compile(rb":(\d{6}) (\d{6}) ([0-9a-f]+) ([0-9a-f]+) ([A-Z])(\d*)\t(.*)", re.DOTALL)
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)", re.DOTALL)
_ESCAPE = re.compile(rb"\\([abfnrtv\"\\]|[0-3][0-7]{2})")
_ESCAPES = dict(zip(b'abfnrtv"\\', b'\a\b\f\n\r\t\v"\\', strict=True))
#: git's letter for what became of a file
STATUSES = {
    "A": "added",
    "C": "copied",
    "D": "deleted",
    "M": "modified",
    "R": "renamed",
    "T": "type-changed",
    "U": "unmerged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """Some lines that changed, with those around them."""

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    heading: str  #: the function it is in, as git guesses
    lines: tuple[str, ...]  #: each begins with a blank, +, - or a backslash


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file that differs."""

    path: str
    old_path: str | None  #: where it was renamed or copied from
    status: str  #: a value of STATUSES, or untracked
    old_mode: str | None  #: such as 100644; 120000 is a symbolic link, 160000 a submodule
    new_mode: str | None
    binary: bool = False
    added: int | None = None  #: lines; None where nobody counted
    removed: int | None = None
    omitted: str = ""  #: why its content is not here; empty when it is
    hunks: tuple[Hunk, ...] = ()


def unquote(name: bytes) -> bytes:
    """A path as it is, from how git prints one that holds odd characters."""
    if len(name) < 2 or not (name.startswith(b'"') and name.endswith(b'"')):
        return name

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if len(code) == 3 else bytes([_ESCAPES[code[0]]])

    return _ESCAPE.sub(plain, name[1:-1])


def shown(name: bytes) -> str:
    """A path for people and JSON."""
    return name.decode("utf-8", "replace")


def raw_entry(line: bytes) -> tuple[FileChange, bytes] | None:
    """A line of `--raw`, and the path it names, byte for byte."""
    match = _RAW.fullmatch(line)
    if match is None:
        return None
    names = [unquote(name) for name in match[7].split(b"\t")]
    old, new = match[1].decode(), match[2].decode()
    change = FileChange(
        path=shown(names[-1]),
        old_path=shown(names[0]) if len(names) > 1 else None,
        status=STATUSES.get(match[5].decode(), "modified"),
        old_mode=None if old == "000000" else old,
        new_mode=None if new == "000000" else new,
    )
    return change, names[-1]


def parse(output: bytes, *, cut: bool) -> list[tuple[FileChange, bytes]]:
    """All files of `git diff --raw --patch`, each with its name in bytes.

    Args:
        output: what git printed, without -z.
        cut: it ends somewhere in the middle; what is not whole is left out, and says so.
    """
    lines = output.split(b"\n")
    position = 0
    entries: list[tuple[FileChange, bytes]] = []
    while position < len(lines) and lines[position].startswith(b":"):
        if entry := raw_entry(lines[position]):
            entries.append(entry)
        position += 1
    sections = list(_sections(lines, position))
    if cut and sections:
        sections.pop()  # git was in the middle of it
    found: list[tuple[FileChange, bytes]] = []
    at = 0
    for change, name in entries:
        # a file that became a link is printed as one that went and one that came
        wanted = 2 if change.status == "type-changed" else 1
        mine = sections[at : at + wanted]
        at += wanted
        if len(mine) < wanted:
            found.append((replace(change, omitted="the limit of the whole diff was reached"), name))
            continue
        hunks = tuple(hunk for section in mine for hunk in section.hunks)
        texts = [line for hunk in hunks for line in hunk.lines]
        binary = any(section.binary for section in mine)
        found.append(
            (
                replace(
                    change,
                    binary=binary,
                    hunks=hunks,
                    added=None if binary else sum(t.startswith("+") for t in texts),
                    removed=None if binary else sum(t.startswith("-") for t in texts),
                ),
                name,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Section:
    hunks: tuple[Hunk, ...]
    binary: bool


def _sections(lines: list[bytes], position: int) -> Iterator[_Section]:
    hunks: list[Hunk] | None = None
    binary = False
    while position < len(lines):
        line = lines[position]
        if line.startswith((b"diff --git ", b"* Unmerged path ")):
            if hunks is not None:
                yield _Section(tuple(hunks), binary)
            hunks, binary = [], False
        elif hunks is not None and (match := _HUNK.fullmatch(line)):
            hunk, position = _hunk(match, lines, position + 1)
            hunks.append(hunk)
            continue
        elif line.startswith((b"Binary files ", b"GIT binary patch")):
            binary = True
        position += 1
    if hunks is not None:
        yield _Section(tuple(hunks), binary)


def _hunk(head: re.Match[bytes], lines: list[bytes], position: int) -> tuple[Hunk, int]:
    old_start, new_start = int(head[1]), int(head[3])
    old_lines = 1 if head[2] is None else int(head[2])
    new_lines = 1 if head[4] is None else int(head[4])
    old, new = old_lines, new_lines
    taken: list[str] = []
    while position < len(lines):
        line = lines[position]
        if line.startswith(b"\\") and taken:
            pass  # \ No newline at end of file: belongs to the line before it
        elif old <= 0 and new <= 0:
            break
        elif line.startswith(b"+"):
            new -= 1
        elif line.startswith(b"-"):
            old -= 1
        else:
            old, new = old - 1, new - 1
        taken.append(line.decode("utf-8", "replace"))
        position += 1
    hunk = Hunk(
        old_start=old_start,
        old_lines=old_lines,
        new_start=new_start,
        new_lines=new_lines,
        heading=head[5].decode("utf-8", "replace"),
        lines=tuple(taken),
    )
    return hunk, position
