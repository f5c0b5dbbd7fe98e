"""The diff of a worktree: complete, harmless, bounded."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator import diff
from orchestrator.errors import ConfigError, InvalidInput
from tests.unit.repositories import canary, commit, git, repository


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with some files."""
    made = repository(tmp_path / "src")
    (made / "old name").write_text("".join(f"line {n}\n" for n in range(40)))
    (made / "gone").write_text("bye\n")
    (made / "script").write_text("#!/bin/sh\n")
    (made / ".gitignore").write_text("*.ignored\n")
    commit(made, "second")
    return made


@pytest.fixture
def tree(repo: Path) -> Path:
    """A worktree of it."""
    path = repo.parent / "wt" / "ticket-1"
    git(repo, "worktree", "add", "-q", "-b", "ticket-1", str(path))
    return path


def by_path(found: diff.Diff) -> dict[str, diff.FileChange]:
    """Its files."""
    return {f.path: f for f in found.files}


def test_committed_staged_unstaged_and_untracked_are_one_diff(repo: Path, tree: Path) -> None:
    """All that differs from the base is there once, with its hunks; the index stays as it was."""
    base = git(repo, "rev-parse", "HEAD")
    git(tree, "mv", "old name", "new name")
    commit(tree, "rename")
    (tree / "README").write_text("hello\nstaged\n")
    git(tree, "add", "README")
    (tree / "README").write_text("hello\nstaged\nnot staged\n")
    (tree / "new ä\n\tfile").write_text("one\ntwo")
    (tree / "empty").touch()
    (tree / "x.ignored").write_text("x")
    (tree / "gone").unlink()
    (tree / "script").chmod(0o755)
    (tree / "data").write_bytes(b"\0\1\2")
    (tree / "link").symlink_to("/etc/passwd")
    before = git(tree, "status", "--porcelain=v2")
    index = Path(git(tree, "rev-parse", "--git-dir")) / "index"
    then = index.read_bytes()
    found = diff.diff(repo, tree, base)
    assert index.read_bytes() == then
    assert git(tree, "status", "--porcelain=v2") == before
    files = by_path(found)
    assert not found.truncated
    assert {p: f.status for p, f in files.items()} == {
        "README": "modified", "data": "untracked", "empty": "untracked", "gone": "deleted",
        "link": "untracked", "new name": "renamed", "new ä\n\tfile": "untracked",
        "script": "modified",
    }  # fmt: skip
    assert files["README"].hunks[0].lines == (" hello", "+staged", "+not staged")
    assert (files["README"].added, files["README"].removed) == (2, 0)
    assert files["new name"].old_path == "old name"
    assert files["data"].binary
    assert files["data"].added is None
    assert (files["script"].old_mode, files["script"].new_mode) == ("100644", "100755")
    assert files["new ä\n\tfile"].hunks[0].lines == ("+one", "+two", "\\ No newline at end of file")
    assert files["link"].hunks[0].lines[0] == "+/etc/passwd"
    assert found.added == 2 + 2 + 1
    assert found.removed == 1


def test_content_that_looks_like_a_patch_is_content(repo: Path, tree: Path) -> None:
    """A file full of diff headers is one file."""
    base = git(repo, "rev-parse", "HEAD")
    text = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n* Unmerged path y\n"
    (tree / "a").write_text(text)
    (tree / "README").write_text(text)
    files = diff.diff(repo, tree, base).files
    assert [f.path for f in files] == ["README", "a"]
    assert [f.added for f in files] == [7, 7]


def test_the_patch_makes_the_base_into_the_worktree(repo: Path, tree: Path) -> None:
    """`git apply` of the patch gives the same files, binary ones and modes too."""
    base = git(repo, "rev-parse", "HEAD")
    (tree / "README").write_text("other\n")
    (tree / "data").write_bytes(bytes(range(256)))
    (tree / "script").chmod(0o755)
    (tree / "gone").unlink()
    made = diff.patch(repo, tree, base)
    subprocess.run(["git", "apply", "--binary"], cwd=repo, input=made, check=True)
    assert (repo / "data").read_bytes() == bytes(range(256))
    assert (repo / "README").read_text() == "other\n"
    assert os.access(repo / "script", os.X_OK)
    assert not (repo / "gone").exists()


@pytest.mark.fault(25)
def test_nothing_of_the_agents_is_run(repo: Path, tree: Path, tmp_path: Path) -> None:
    """fsmonitor, external diff, textconv, filters, hooks, merge drivers, pager: none of them."""
    base = git(repo, "rev-parse", "HEAD")
    (tree / "sub").mkdir()
    inner = repository(tree / "inner")
    traces = []
    for name, keys in {
        "monitor": ["core.fsmonitor"],
        "external": ["diff.external", "diff.evil.command"],
        "textconv": ["diff.evil.textconv"],
        "clean": ["filter.evil.clean", "filter.a=b.clean"],
        "smudge": ["filter.evil.smudge"],
        "process": ["filter.evil.process", "filter.slow.process"],
        "merge": ["merge.evil.driver"],
        "pager": ["core.pager", "pager.diff"],
        "ssh": ["core.sshCommand"],
        "alias": ["alias.diff"],
    }.items():
        program, trace = canary(tmp_path, name)
        traces.append(trace)
        for key in keys:
            git(repo, "config", key, str(program))
            git(inner, "config", key, str(program))
    git(repo, "config", "filter.evil.required", "true")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("post-index-change", "post-checkout", "fsmonitor-watchman", "pre-commit"):
        program, trace = canary(hooks, hook)
        traces.append(trace)
    git(repo, "config", "core.hooksPath", str(hooks))
    (tree / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\nz filter=a=b\n")
    (tree / "README").write_text("changed\n")
    (tree / "new").write_text("new\n")
    (tree / "z").write_text("new\n")
    os.utime(tree / "script")  # its time has changed, its content has not
    found = diff.diff(repo, tree, base)
    diff.patch(repo, tree, base)
    diff.summary(repo, tree, "main")
    assert {"README", "new", "z", ".gitattributes"} <= set(by_path(found))
    assert [t.name for t in traces if t.exists()] == []
    subprocess.run(["git", "-C", tree, "diff"], capture_output=True, check=False, timeout=20)
    assert "monitor.ran" in [t.name for t in traces if t.exists()]  # they do wait to be run


@pytest.mark.fault(25)
def test_a_replaced_git_file_leads_nowhere(repo: Path, tree: Path, tmp_path: Path) -> None:
    """The file .git in the worktree is the agent's: another repository behind it is not read."""
    base = git(repo, "rev-parse", "HEAD")
    program, trace = canary(tmp_path, "monitor")
    evil = repository(tmp_path / "evil")
    git(evil, "config", "core.fsmonitor", str(program))
    (tree / ".git").write_text(f"gitdir: {evil}/.git\n")
    (tree / "README").write_text("changed\n")
    assert [f.path for f in diff.diff(repo, tree, base).files] == ["README"]
    assert not trace.exists()


@pytest.mark.fault(25)
def test_what_is_no_file_is_named_and_not_opened(repo: Path, tree: Path) -> None:
    """A FIFO, also in place of a tracked file or of a folder, and links out of the tree."""
    base = git(repo, "rev-parse", "HEAD")
    os.mkfifo(tree / "fifo")
    (tree / "README").unlink()
    os.mkfifo(tree / "README")
    (tree / "out").symlink_to("/etc")
    (tree / "gone").unlink()
    (tree / "gone").symlink_to("/etc/shadow")
    begun = time.monotonic()
    files = by_path(diff.diff(repo, tree, base))
    assert time.monotonic() - begun < 5
    assert files["README"].omitted == "a FIFO"
    assert files["gone"].status == "type-changed"
    assert files["gone"].hunks[-1].lines[0] == "+/etc/shadow"
    assert files["out"].hunks[0].lines[0] == "+/etc"
    assert all(f.path in {"README", "gone", "out"} for f in files.values())
    assert b"# left out: 'README': a FIFO" in diff.patch(repo, tree, base)
    assert diff.summary(repo, tree, "main").dirty == 3


@pytest.mark.fault(25)
def test_two_gigabytes_are_named_and_not_read(repo: Path, tree: Path) -> None:
    """A huge file, a huge change and very many files: in time, `truncated`, each with its reason."""
    base = git(repo, "rev-parse", "HEAD")
    with (tree / "huge").open("wb") as file:
        file.truncate(2 << 30)
    with (tree / "README").open("wb") as file:
        file.truncate(2 << 30)
    begun = time.monotonic()
    found = diff.diff(repo, tree, base)
    assert time.monotonic() - begun < 5
    assert found.truncated
    assert {p: f.omitted for p, f in by_path(found).items()} == {
        "huge": f"{2 << 30} bytes", "README": f"{2 << 30} bytes",
    }  # fmt: skip
    for number in range(40):
        (tree / f"many-{number:02}").write_text("x" * 1000 + "\n")
    limits = diff.Limits(max_patch_bytes=20_000)
    found = diff.diff(repo, tree, base, limits=limits)
    assert found.truncated
    assert len(found.files) == 42
    assert 5 < sum(not f.omitted for f in found.files) < 40
    cut = diff.patch(repo, tree, base, limits=limits)
    assert len(cut) < 21_000
    assert b"# left out: the rest" in cut
    found = diff.diff(repo, tree, base, limits=diff.Limits(max_files=10))
    assert len(found.files) == 10
    assert found.truncated


def test_a_file_of_git_lfs_is_unchanged_when_it_is_what_its_pointer_says(
    repo: Path, tree: Path
) -> None:
    """Without its filter being run, and also right after the checkout."""
    content = b"large\0content"
    pointer = (
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{hashlib.sha256(content).hexdigest()}\nsize {len(content)}\n"
    )
    (repo / ".git/lfs").mkdir()
    (tree / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (tree / "a.bin").write_text(pointer)
    base = commit(tree, "lfs")
    (tree / "a.bin").write_bytes(content)
    assert diff.diff(repo, tree, base).files == ()
    assert diff.summary(repo, tree, "main").dirty == 0
    (tree / "a.bin").write_bytes(b"other")
    assert [f.path for f in diff.diff(repo, tree, base).files] == ["a.bin"]


def test_ahead_behind_dirty_and_conflicts(repo: Path, tree: Path) -> None:
    """The board's numbers are git's; the merge is tried without touching anything."""
    assert diff.summary(repo, tree, "main").text == "="
    (tree / "README").write_text("theirs\n")
    commit(tree)
    (tree / "fine").write_text("x\n")
    commit(tree)
    (repo / "README").write_text("ours\n")
    commit(repo)
    (tree / "untracked").touch()
    (tree / "gone").unlink()
    found = diff.summary(repo, tree, "main")
    assert (found.ahead, found.behind, found.dirty, found.untracked) == (2, 1, 2, 1)
    assert found.conflicts == ("README",)
    assert found.branch == "refs/heads/ticket-1"
    assert found.text == "+2 -1 *2 !1"
    assert git(repo, "status", "--porcelain") == ""


def test_what_is_missing_is_said(repo: Path, tree: Path, tmp_path: Path) -> None:
    """A worktree that went, one of another repository, a base that is no commit."""
    base = git(repo, "rev-parse", "HEAD")
    with pytest.raises(InvalidInput):
        diff.diff(repo, tree, "--output=/tmp/x")
    with pytest.raises(ConfigError, match="where the work began"):
        diff.diff(repo, tree, "1" * 40)
    with pytest.raises(ConfigError, match="is gone"):
        diff.diff(repo, tmp_path / "nowhere", base)
    with pytest.raises(ConfigError, match="is no worktree of"):
        diff.diff(repository(tmp_path / "other"), tree, base)


@pytest.mark.parametrize("shape", ["bare", "sha256", "unborn", "submodule", "detached"])
def test_repositories_of_every_shape(tmp_path: Path, shape: str) -> None:
    """Bare, SHA-256, without a commit in the worktree, with submodules, with a detached HEAD."""
    repo = tmp_path / "repo"
    if shape == "sha256":
        repo.mkdir()
        git(repo, "init", "-q", "-b", "main", "--object-format=sha256")
        (repo / "README").write_text("hello\n")
        commit(repo)
    else:
        repository(repo)
    if shape == "submodule":
        inner = repository(tmp_path / "inner")
        git(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "sub")
        commit(repo)
    base = git(repo, "rev-parse", "HEAD")
    if shape == "bare":
        git(tmp_path, "clone", "-q", "--bare", str(repo), "bare.git")
        repo = tmp_path / "bare.git"
    tree = tmp_path / "wt"
    how = ["--detach"] if shape == "detached" else ["-b", "ticket-1"]
    git(repo, "worktree", "add", "-q", *how, str(tree))
    if shape == "unborn":
        git(tree, "checkout", "-q", "--orphan", "fresh")
    if shape == "submodule":
        git(tree, "-c", "protocol.file.allow=always", "submodule", "update", "--init", "-q")
        program, trace = canary(tmp_path, "monitor")
        git(tree / "sub", "config", "core.fsmonitor", str(program))
        (tree / "sub/README").write_text("dirty\n")
        (tree / "sub/more").write_text("more\n")
        commit(tree / "sub")
        trace.unlink(missing_ok=True)
    (tree / "README").write_text("changed\n")
    found = by_path(diff.diff(repo, tree, base))
    assert found["README"].hunks[0].lines == ("-hello", "+changed")
    assert diff.summary(repo, tree, "main").dirty >= 1
    if shape == "submodule":
        assert found["sub"].new_mode == "160000"
        assert not trace.exists()
