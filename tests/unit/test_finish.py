"""Merging and pushing: one change, or none and a sentence that says which files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator import finish
from orchestrator.errors import ConfigError, Conflict, InvalidInput, TicketError
from tests.unit.repositories import canary, commit, git, repository

GITLAB = "https://gitlab.example.org/a/b/c/-/merge_requests/new"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a commit on main."""
    return repository(tmp_path / "src" / "demo")


@pytest.fixture
def tree(repo: Path) -> Path:
    """A worktree with two commits."""
    path = repo.parent / "wt" / "ticket-1"
    git(repo, "worktree", "add", "-q", "-b", "ticket-1", str(path))
    (path / "new").write_text("one\n")
    commit(path, "one")
    (path / "new").write_text("two\n")
    commit(path, "two")
    return path


@pytest.mark.parametrize("how", ["ff", "merge", "squash"])
@pytest.mark.parametrize("moved", [False, True])
def test_the_three_ways(repo: Path, tree: Path, how: str, *, moved: bool) -> None:
    """Branch and its checkout have the work; a base that moved takes no fast-forward."""
    if moved:
        (repo / "mine").write_text("mine\n")
        commit(repo, "mine")
    before = git(repo, "rev-parse", "main")
    if how == "ff" and moved:
        with pytest.raises(Conflict, match="no fast-forward"):
            finish.merge(repo, tree, into="main", how=how, message="Title")
        assert git(repo, "rev-parse", "main") == before
        return
    done = finish.merge(repo, tree, into="main", how=how, message="Title\n\nTicket 1\n")
    assert git(repo, "rev-parse", "main") == done.commit != before
    assert git(repo, "status", "--porcelain") == ""
    assert (repo / "new").read_text() == "two\n"
    parents = git(repo, "log", "-1", "--format=%P", "main").split()
    assert len(parents) == (2 if how == "merge" else 1)
    if how != "ff":
        assert git(repo, "log", "-1", "--format=%s", "main") == "Title"
    again = finish.merge(repo, tree, into="main", how=how, message="x")
    assert again.how == "nothing"


@pytest.mark.parametrize(
    "trouble", ["conflict", "dirty", "staged", "in-the-way", "lock", "detached"]
)
def test_trouble_is_named_and_nothing_is_changed(repo: Path, tree: Path, trouble: str) -> None:
    """Conflicts, a dirty base, an untracked file in the way, a lock: which, and all as it was."""
    if trouble == "conflict":
        (repo / "new").write_text("mine\n")
        commit(repo)
    elif trouble == "dirty":
        (repo / "README").write_text("dirty\n")
    elif trouble == "staged":
        (repo / "README").write_text("dirty\n")
        git(repo, "add", "README")
    elif trouble == "in-the-way":
        (repo / "new").write_text("precious\n")
    elif trouble == "lock":
        (repo / ".git/index.lock").touch()
    elif trouble == "detached":
        git(repo, "checkout", "-q", "--detach")
        with pytest.raises(InvalidInput, match="detached"):
            finish.base_branch(repo, None)
        return
    before = (
        git(repo, "rev-parse", "main"),
        git(repo, "--no-optional-locks", "status", "--porcelain"),
    )
    said = {
        "conflict": "new",
        "dirty": "README",
        "staged": "README",
        "lock": "Another git",
        "in-the-way": "new",
    }
    with pytest.raises(Conflict, match=said[trouble]):
        finish.merge(repo, tree, into="main", how="merge", message="x")
    after = (
        git(repo, "rev-parse", "main"),
        git(repo, "--no-optional-locks", "status", "--porcelain"),
    )
    assert after == before


def test_a_branch_that_is_checked_out_nowhere_is_merged_too(repo: Path, tree: Path) -> None:
    """Also into another than the one it began at; names are checked."""
    git(repo, "branch", "release")
    done = finish.merge(repo, tree, into="release", how="squash", message="x")
    assert git(repo, "show", "release:new") == "two"
    assert git(repo, "rev-parse", "release") == done.commit
    for name in ("nope", "-x", "a..b", "$(id)", "HEAD"):
        with pytest.raises(TicketError):
            finish.merge(repo, tree, into=name, message="x")


def test_a_merge_runs_nothing_of_the_agents(repo: Path, tree: Path, tmp_path: Path) -> None:
    """Merge drivers, hooks, fsmonitor."""
    (repo / "mine").write_text("mine\n")
    commit(repo)
    traces = []
    for key in ("core.fsmonitor", "merge.evil.driver"):
        program, trace = canary(tmp_path, key)
        git(repo, "config", key, str(program))
        traces.append(trace)
    hooks = ("post-merge", "pre-merge-commit", "reference-transaction", "post-checkout")
    traces += [canary(repo / ".git/hooks", hook)[1] for hook in hooks]
    (repo / ".git/info").mkdir(exist_ok=True)
    (repo / ".git/info/attributes").write_text("* merge=evil\n")
    for trace in traces:
        trace.unlink(missing_ok=True)
    finish.merge(repo, tree, into="main", how="merge", message="x")
    assert [t.name for t in traces if t.exists()] == []


def test_push_goes_to_the_remote_and_is_never_forced(
    repo: Path, tree: Path, tmp_path: Path
) -> None:
    """A branch that the remote has otherwise is refused."""
    with pytest.raises(InvalidInput, match="no remote"):
        finish.push(repo, "ticket-1", "main")
    remote = tmp_path / "remote.git"
    git(tmp_path, "init", "-q", "--bare", str(remote))
    git(repo, "remote", "add", "upstream", str(remote))
    assert finish.push(repo, "ticket-1", "main") == "upstream"
    assert git(remote, "rev-parse", "ticket-1") == git(tree, "rev-parse", "HEAD")
    git(tree, "commit", "-q", "--amend", "-m", "rewritten")
    with pytest.raises(Conflict):
        finish.push(repo, "ticket-1", "main")


def test_the_pull_request_is_ghs_or_a_page(
    repo: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gh its address; with a gh that fails, or none, where to open it, and why."""
    git(repo, "remote", "add", "origin", "git@git.example.org:me/demo.git")
    ask = {"title": "T", "body": "B"}
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    page, remark = finish.open_pull_request(repo, "origin", "ticket-1", "main", **ask)
    assert page == "https://git.example.org/me/demo/compare/main...ticket-1?expand=1"
    assert remark == "gh is not installed"
    gh = tmp_path / "bin/gh"
    gh.parent.mkdir()
    gh.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$0.args"; echo https://example.org/pull/7\n')
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gh.parent}:{os.environ['PATH']}")
    assert finish.open_pull_request(repo, "origin", "ticket-1", "main", **ask) == (
        "https://example.org/pull/7", "",
    )  # fmt: skip
    assert "--head\nticket-1\n--base\nmain" in Path(f"{gh}.args").read_text()
    gh.write_text("#!/bin/sh\necho not logged in >&2; exit 4\n")
    assert (
        finish.open_pull_request(repo, "origin", "ticket-1", "main", **ask)[1]
        == "gh: not logged in"
    )
    git(repo, "remote", "set-url", "origin", "/srv/demo.git")
    with pytest.raises(ConfigError, match="is pushed to origin"):
        finish.open_pull_request(repo, "origin", "ticket-1", "main", **ask)


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("https://user@example.org/a/b.git", "https://example.org/a/b/compare/m...x?expand=1"),
        ("ssh://git@example.org:2222/a/b", "https://example.org/a/b/compare/m...x?expand=1"),
        ("git@gitlab.example.org:a/b/c.git",
         f"{GITLAB}?merge_request[source_branch]=x&merge_request[target_branch]=m"),
        ("../b", None),
    ],
)  # fmt: skip
def test_pages_of_remotes(url: str, page: str | None) -> None:
    """From every way to write an address; a token in it is not shown."""
    assert finish.compare_page(url, "x", "m") == page
