"""How a release is made: its version, its notes, what it consists of, and whether that is known to be bad."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from release.audit import audit
from release.notes import NoNotesError, notes
from release.parts import LOCK, PROGRAM, Part, browser_code, libraries
from release.sbom import sbom
from webgate import vendor_hook

ROOT = Path(__file__).resolve().parents[2]
GIT = ("git", "-c", "user.name=op", "-c", "user.email=op@example.org", "-c", "safe.directory=*")
COMMITTED = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".git_archival.txt",
    ".gitattributes",
    "webgate/vendor_hook.py",
)


# -- the version -------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with two commits that builds as this one does; it has no tag."""
    folder = tmp_path / "checkout"
    for name in COMMITTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "commit", "-q", "-m", "second", "--allow-empty")
    return folder


def git(folder: Path, *args: str) -> str:
    """Runs git there."""
    done = subprocess.run([*GIT, *args], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def version(folder: Path) -> str:
    """What a wheel built there would be called."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "version"],
        cwd=folder, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_version_is_the_tag(checkout: Path) -> None:
    """On it; a development version of the next one after it, with the commit; a tag of something else is none."""
    git(checkout, "tag", "v0.2.0")
    assert version(checkout) == "0.2.0"
    git(checkout, "commit", "-q", "-m", "third", "--allow-empty")
    commit = git(checkout, "rev-parse", "--short=9", "HEAD")
    assert version(checkout) == f"0.2.1.dev1+g{commit}"
    git(checkout, "tag", "seen-by-ann")
    assert version(checkout) == f"0.2.1.dev1+g{commit}"


def test_a_clone_without_tags_has_a_version(checkout: Path, tmp_path: Path) -> None:
    """With one commit of history, as services that build things clone; it names the commit."""
    commit = git(checkout, "rev-parse", "--short=9", "HEAD")
    git(tmp_path, "clone", "-q", "--depth", "1", "--no-tags", f"file://{checkout}", "shallow")
    assert version(tmp_path / "shallow") == f"0.1.dev1+g{commit}"


def test_a_tarball_has_a_version(checkout: Path, tmp_path: Path) -> None:
    """`git archive` writes the tag in; a copy of the files alone is 0.0, and is built all the same."""
    git(checkout, "tag", "v0.2.0")
    tarball, unpacked = tmp_path / "x.tar", tmp_path / "unpacked"
    git(checkout, "archive", "--output", str(tarball), "HEAD")
    unpacked.mkdir()
    subprocess.run(["tar", "-C", str(unpacked), "-xf", str(tarball)], check=True)
    assert version(unpacked) == "0.2.0"
    shutil.rmtree(checkout / ".git")
    assert version(checkout) == "0.0"


# -- the notes ---------------------------------------------------------------------------------------------------

CHANGELOG = """\
# Changelog

Something about it.

## Unreleased

## [0.2.0] - 2026-12-01

### Added

- A thing that goes
  on in another line.
- `code`.

  A paragraph
  of it.

```console
$ as it
stands
```

### Fixed

- Another.

## 0.1.0 - 2026-11-01

- First.
"""


def test_the_notes_of_a_version() -> None:
    """Its part alone, a line an entry, by version or by tag."""
    said = notes(CHANGELOG, "v0.2.0")
    assert said.startswith("### Added\n\n- A thing that goes on in another line.\n- `code`.\n")
    assert "\n  A paragraph of it.\n" in said
    assert "```console\n$ as it\nstands\n```\n" in said
    assert said.endswith("### Fixed\n\n- Another.\n")
    assert notes(CHANGELOG, "0.1.0") == "- First.\n"


@pytest.mark.parametrize(
    ("changelog", "wanted", "says"),
    [
        (CHANGELOG, "0.3.0", r"no part for '0.3.0' \(there are: unreleased, 0.2.0, 0.1.0\)"),
        (CHANGELOG, "Unreleased", "says nothing of Unreleased"),
        (CHANGELOG.replace("0.1.0", "0.2.0"), "0.2.0", "two parts for 0.2.0"),
        (CHANGELOG.replace("2026-11-01", "yesterday"), "0.2.0", "names no version, or no day"),
        ("", "0.1.0", "there are: none"),
        (CHANGELOG.replace("- First.", "### Added"), "0.1.0", "says nothing of 0.1.0"),
    ],
)
def test_what_are_no_notes(changelog: str, wanted: str, says: str) -> None:
    """Missing, empty, twice, unreadable: each is said, and nothing else is printed as if it were them."""
    with pytest.raises(NoNotesError, match=says):
        notes(changelog, wanted)


def test_make_release_notes() -> None:
    """The command that CONTRIBUTING.md names: notes of this changelog, or an error with exit status."""
    fine = subprocess.run(
        ["make", "-s", "release-notes", "VERSION=Unreleased"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert fine.returncode == 0, fine.stderr
    assert fine.stdout.startswith(("### ", "- "))
    for wrong in ("VERSION=99.0", "VERSION="):
        done = subprocess.run(
            ["make", "-s", "release-notes", wrong],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0, done.stdout) == (True, ""), wrong


# -- the bill of materials ---------------------------------------------------------------------------------------


def test_the_bill_names_everything_that_is_shipped_or_needed() -> None:
    """Each dependency of pyproject.toml and theirs, each npm package with its sum; nothing that only tests use."""
    bill = json.loads(sbom([*libraries(), *browser_code()], "0.2.0"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/{PROGRAM}@0.2.0"
    by_purl = {part["purl"].rpartition("@")[0]: part for part in bill["components"]}
    wanted = {
        "bottle",
        "click",
        "gevent",
        "greenlet",
        "jinja2",
        "libtmux",
        "prometheus-client",
        "psycopg2-binary",
        "pystemd",
        "watchdog",
    }
    assert {f"pkg:pypi/{name}" for name in wanted} <= set(by_purl)
    assert not {"pkg:pypi/pytest", "pkg:pypi/hatchling", "pkg:npm/axe-core"} & set(by_purl)
    assert all(part.get("licenses") for part in bill["components"])
    locked = json.loads(LOCK.read_text(encoding="utf-8"))["packages"]
    for file in vendor_hook.FILES:
        name = "/".join(file.split("/")[:2])
        part = by_purl[f"pkg:npm/{name.replace('@', '%40')}"]
        assert part["version"] == locked[f"node_modules/{name}"]["version"]
        assert len(part["hashes"][0]["content"]) == 128
    [tree] = [d for d in bill["dependencies"] if d["ref"] == PROGRAM]
    assert len(tree["dependsOn"]) == len(bill["components"])


def test_the_bill_is_of_the_version_that_a_wheel_would_have(tmp_path: Path) -> None:
    """Git's word of now, not what this checkout was called when it was installed for the tests."""
    target = tmp_path / "new/bill.json"
    argv = [sys.executable, "-m", "release.sbom", str(target)]
    done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"{target}: ")
    component = json.loads(target.read_text(encoding="utf-8"))["metadata"]["component"]
    assert component["version"] == version(ROOT)


# -- advisories --------------------------------------------------------------------------------------------------

ADVISORY = {
    "id": "GHSA-test-0001", "summary": "bad", "details": "very bad", "aliases": ["CVE-2099-1"],
    "published": "2026-01-01T00:00:00Z", "modified": "2026-01-01T00:00:00Z",
    "affected": [{
        "package": {"ecosystem": "PyPI", "name": "jinja2"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.11"}]}],
    }],
}  # fmt: skip
SOME = [Part(kind="pypi", name=n, version="2.10", licence="") for n in ("click", "jinja2")]


@contextmanager
def advisory_service(answer: Callable[[str], tuple[int, Any]]) -> Iterator[list[str]]:
    """A service on loopback that speaks as OSV does; yields the options that name it to pip-audit."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer(asked["package"]["name"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Nothing: pytest's output is for tests."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield ["--vulnerability-service", "osv", "--osv-url", address]
        server.shutdown()


def test_an_advisory_is_found() -> None:
    """By the real pip-audit: which library, which advisory, what mends it. Others are no finding."""
    with advisory_service(
        lambda name: (200, {"vulns": [ADVISORY]} if name == "jinja2" else {})
    ) as service:
        found = audit(SOME, [service])
    assert [line.split(":")[0] for line in found.findings] == ["jinja2 2.10"]
    assert "mended in 2.11" in f"{found}"


def test_nothing_known_is_a_pass() -> None:
    """A service that answered for each."""
    with advisory_service(lambda _: (200, {})) as service:
        found = audit(SOME, [service])
    assert (found.findings, found.unknown) == ((), "")


def test_a_service_out_of_reach_is_neither() -> None:
    """No connection, or an error of its own: nothing was found out, and why. The next one is asked."""
    closed = ["--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9"]
    found = audit(SOME, [closed])
    assert found.findings == ()
    assert found.unknown.startswith("no advisory service answers: http://127.0.0.1:9")
    with advisory_service(lambda _: (503, {})) as broken:
        assert audit(SOME, [broken]).unknown
    with advisory_service(lambda _: (200, {})) as service:
        assert audit(SOME, [closed, service]).unknown == ""


def test_another_failure_is_one() -> None:
    """An option that pip-audit does not take is no reason of the network's."""
    with pytest.raises(RuntimeError, match="pip-audit failed"):
        audit(SOME, [["--no-such-option"]])
