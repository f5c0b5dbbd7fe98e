"""Makes the lines that drills left (tests/faults/record.py) into benchmarks/results/faults.md.

`python3 -m tests.faults FOLDER` after `MC_FAULTS_DIR=FOLDER tests/run … -m fault`; `make faults` does both.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "docs/faults.md"
TABLE = ROOT / "benchmarks/results/faults.md"
_ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def rows() -> dict[int, tuple[str, str, str]]:
    """Fault, what is expected, and how it is drilled, by number."""
    text = ROWS.read_text(encoding="utf-8")
    return {int(m[1]): (m[2].strip(), m[3].strip(), m[4].strip()) for m in _ROW.finditer(text)}


def told(folder: Path) -> list[dict[str, Any]]:
    """The last line of each test: one that was tried again is what it came to in the end, a skipped one only if it never ran."""
    lines = [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"), key=lambda p: p.stat().st_mtime)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    lines.sort(key=lambda line: line["outcome"] != "skipped")
    return list({line["test"]: line for line in lines}.values())


def table(found: list[dict[str, Any]]) -> str:
    """The whole page."""
    version = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--tags"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    lines = [
        "# The drills",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, at {version}, Linux {platform.release()}, {platform.machine()}.",
        "Made by `make faults`; what each row means, and what is expected, says [docs/faults.md](../../docs/faults.md).",
        "",
        "| # | fault | tried | lost | doubled | back after (median; worst) | drills |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for number, (fault, _, _) in sorted(rows().items()):
        mine = [line for line in found if number in line["rows"]]
        ran = [line for line in mine if line["outcome"] == "passed"]
        seconds = [s for line in ran for s in line["seconds"]]
        back = f"{statistics.median(seconds):.1f} s; {max(seconds):.1f} s" if seconds else "–"
        drills = f"{len(ran)} of {len(mine)} passed" if mine else "not run"
        notes = "; ".join(sorted({line["note"] for line in mine if line["note"]}))
        sums = [sum(line[key] for line in ran) for key in ("tried", "lost", "doubled")]
        cells = [
            str(number),
            fault,
            *map(str, sums),
            back,
            drills + (f": {notes}" if notes else ""),
        ]
        lines.append(
            "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the table, and says which rows are not as they should be."""
    found = told(Path(sys.argv[1]))
    text = table(found)
    TABLE.write_text(text, encoding="utf-8")
    print(text)
    bad = [n for n in rows() if not any(n in line["rows"] for line in found)]
    bad += [n for line in found if line["outcome"] == "failed" for n in line["rows"]]
    if bad:
        print(f"not run, or failed: {sorted(set(bad))}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
