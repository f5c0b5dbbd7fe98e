"""Finish the work: merge a ticket's branch into its base, or push it for a pull request.

A merge is computed first (`git_view`: no merge driver, no hook) and is then one change of the branch,
made only when it is still where it was seen. The base's checkout is touched when it is clean, and
by git's own two-way merge, which overwrites nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator import git, loss, worktree
from orchestrator.diff import conflicts_between
from orchestrator.errors import ConfigError, Conflict, InvalidInput
from orchestrator.git_view import View

HOWS = ("ff", "merge", "squash")
PUSH_TIMEOUT_S = 300.0
GH_TIMEOUT_S = 120
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}", re.ASCII)
_SCP = re.compile(r"(?:[^@/]+@)?(?P<host>[^:/]+):(?P<path>[^/].*)")
_URL = re.compile(r"(?:https?|ssh|git)://(?:[^@/]+@)?(?P<host>[^/:]+)(?::\d+)?/(?P<path>.+)")


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of a merge."""

    into: str
    how: str  #: one of HOWS, or nothing where there was nothing to do
    head: str  #: what was merged
    commit: str  #: where the base is now
    notes: tuple[str, ...] = ()


def base_branch(repo: Path, base_ref: str | None) -> str:
    """The local branch a ticket's work goes back to.

    Raises:
        InvalidInput: the ticket began at a commit, or HEAD is detached.
    """
    if base_ref and base_ref != "HEAD":
        found = git.run(repo, "show-ref", "--verify", "--quiet", f"refs/heads/{base_ref}")
        if _BRANCH.fullmatch(base_ref) and not found.status:
            return base_ref
        raise InvalidInput(f"{base_ref!r} is no branch of {repo}.", hint="Name one: --into BRANCH")
    done = git.run(repo, "symbolic-ref", "--quiet", "--short", "HEAD")
    if done.status:
        raise InvalidInput(f"HEAD of {repo} is detached.", hint="Name a branch: --into BRANCH")
    return done.text.strip()


def merge(repo: Path, tree: Path, *, into: str, how: str = "merge", message: str) -> Merged:
    """Brings the commits of a worktree into a branch.

    Args:
        repo: the repository.
        tree: the ticket's worktree.
        into: a local branch.
        how: ff (or nothing), merge (a merge commit), squash (one commit).
        message: of the commit that is made.

    Raises:
        Conflict: it conflicts, cannot be fast-forwarded, or the base's checkout is not clean.
        ConfigError: git refuses.
    """
    if how not in HOWS:
        raise InvalidInput(f"{how!r} is no way to merge.", hint=f"One of {', '.join(HOWS)}.")
    with View(repo, tree, timeout_s=loss.TIMEOUT_S) as view:
        head, tip = (
            view.head,
            view.resolve(f"refs/heads/{into}") if _BRANCH.fullmatch(into) else None,
        )
        if tip is None:
            raise InvalidInput(f"{repo} has no branch {into!r}.", hint=f"git -C {repo} branch")
        if head is None:
            raise Conflict(f"{tree} has no commit yet.")
        if view.branch == f"refs/heads/{into}":
            raise Conflict(f"{tree} is on {into} itself.")
        bases = view.run("merge-base", tip, head).text.split()
        if head in bases:
            return Merged(into, "nothing", head, tip, (f"{into} has all of it already",))
        if how == "ff" and tip not in bases:
            raise Conflict(
                f"{into} has commits that {tree} has not: no fast-forward.",
                hint="--merge or --squash; or rebase in the worktree first",
            )
        if clashes := conflicts_between(view, tip, head):
            raise Conflict(
                f"Merging into {into} conflicts in {_list(clashes)}.",
                hint=f"Merge it in the worktree first: git -C {tree} merge {into}",
            )
        dirty = view.run("status", "--porcelain", "-z", "--ignore-submodules=dirty").stdout
        tree_sha = "" if how == "ff" else _merged_tree(view, tip, head)
        if tree_sha == view.run("rev-parse", f"{tip}^{{tree}}").text.strip():
            return Merged(into, "nothing", head, tip, (f"{into} has all of it already",))
        notes = ("what is not committed there is not in it",) if dirty else ()
    checkout = next(
        (p for p, b in worktree.registered(repo).items() if b == f"refs/heads/{into}"), None
    )
    if checkout is not None:
        _check_clean(repo, checkout, into)
    parents = [tip] if how == "squash" else [tip, head]
    new = _commit(repo, tree_sha, parents, message) if tree_sha else head
    _move(repo, checkout, into, tip, new)
    return Merged(into, how, head, new, notes)


def _list(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - loss.SHOWN} more" if len(names) > loss.SHOWN else ""
    return ", ".join(names[: loss.SHOWN]) + more


def _check_clean(repo: Path, checkout: Path, into: str) -> None:
    with View(repo, checkout, timeout_s=loss.TIMEOUT_S) as view:
        if (view.admin / "index.lock").exists():
            raise Conflict(
                f"Another git is at work in {checkout}, or was killed there.",
                hint=f"When none runs: rm {view.admin / 'index.lock'}",
            )
        args = ["status", "--porcelain", "-z", "--untracked-files=no", "--ignore-submodules=dirty"]
        said = git.checked(view.run(*args), f"git status in {checkout}").stdout
        names = tuple(name[3:] for name in git.paths_of(said))
    if names:
        raise Conflict(
            f"{checkout}, where {into} is checked out, has changes: {_list(names)}.",
            hint="Commit or stash them first.",
        )


def _merged_tree(view: View, tip: str, head: str) -> str:
    done = view.run("merge-tree", "--write-tree", "--no-messages", tip, head, keep_objects=True)
    return git.checked(done, f"git merge-tree in {view.worktree}").text.strip()


def _commit(repo: Path, tree: str, parents: list[str], message: str) -> str:
    """A commit that nothing refers to yet."""
    args = [word for parent in parents for word in ("-p", parent)]
    done = git.run(repo, "commit-tree", tree, *args, stdin=message.encode())
    return git.checked(
        done, f"git commit-tree in {repo}", hint="git config --global user.name and user.email"
    ).text.strip()


def _move(repo: Path, checkout: Path | None, into: str, old: str, new: str) -> None:
    if checkout is not None:
        done = git.run(checkout, "read-tree", "-m", "-u", old, new)
        if done.status:
            raise Conflict(
                f"{checkout}, where {into} is checked out, cannot take it: {done.reason}.",
                hint="Untracked files may be in the way. Nothing was changed.",
            )
    ref = f"refs/heads/{into}"
    done = git.run(repo, "update-ref", "-m", "ticketctl merge", ref, new, old)
    if done.status:
        if checkout is not None:
            git.run(checkout, "read-tree", "-m", "-u", new, old)
        raise Conflict(f"{into} was changed meanwhile: {done.reason}.", hint="Try again.")


def push(repo: Path, branch: str, into: str) -> str:
    """Pushes a branch, never by force; the remote it went to.

    Raises:
        InvalidInput: there is no remote.
        Conflict: the remote refuses.
    """
    named = git.run(repo, "config", f"branch.{into}.remote").text.strip()
    remotes = git.run(repo, "remote").text.split()
    remote = next((r for r in (named, "origin", *remotes) if r in remotes), None)
    if remote is None:
        raise InvalidInput(f"{repo} has no remote.", hint=f"git -C {repo} remote add origin URL")
    if (git.common_dir(repo) / "lfs").is_dir() and shutil.which("git-lfs"):
        # hooks are off, and the files of Git LFS travel by one
        git.run(repo, "lfs", "push", remote, branch, timeout_s=PUSH_TIMEOUT_S)
    ref = f"refs/heads/{branch}"
    done = git.run(repo, "push", "--quiet", remote, f"{ref}:{ref}", timeout_s=PUSH_TIMEOUT_S)
    if done.status:
        raise Conflict(f"git push {remote} {branch}: {done.reason}.", hint="Nothing was forced.")
    return remote


def open_pull_request(
    repo: Path, remote: str, branch: str, into: str, *, title: str, body: str
) -> tuple[str, str]:
    """The address of a pull request that `gh` opened, or of the page that opens one; and a remark.

    Raises:
        ConfigError: there is no gh, and the remote's address is none of a web site.
    """
    remark = "gh is not installed"
    if shutil.which("gh"):
        argv = [
            "gh",
            "pr",
            "create",
            "--head",
            branch,
            "--base",
            into,
            "--title",
            title,
            "--body",
            body,
        ]
        try:
            done = subprocess.run(
                argv, cwd=repo, capture_output=True, text=True, check=False, timeout=GH_TIMEOUT_S,
                stdin=subprocess.DEVNULL, env={**os.environ, "GH_PROMPT_DISABLED": "1"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            remark = f"gh took over {GH_TIMEOUT_S} s"
        else:
            if not done.returncode:
                return done.stdout.strip().splitlines()[-1], ""
            remark = (
                f"gh: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}"
            )
    url = git.run(repo, "remote", "get-url", remote).text.strip()
    page = compare_page(url, branch, into)
    if page is None:
        raise ConfigError(
            f"{branch} is pushed to {remote}; {remark}.", hint=f"Open the pull request at {url}"
        )
    return page, remark


def compare_page(url: str, branch: str, into: str) -> str | None:
    """Where a browser opens a pull request for a pushed branch."""
    match = _URL.fullmatch(url) or _SCP.fullmatch(url)
    if match is None:
        return None
    path = match["path"].rstrip("/").removesuffix(".git")
    site = f"https://{match['host']}/{path}"
    if "gitlab" in match["host"]:
        wanted = f"merge_request[source_branch]={branch}&merge_request[target_branch]={into}"
        return f"{site}/-/merge_requests/new?{wanted}"
    return f"{site}/compare/{into}...{branch}?expand=1"
