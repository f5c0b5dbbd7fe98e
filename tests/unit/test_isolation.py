"""isolation*.py: whether an agent is isolated, and the rules of what it sees."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import config as configuration
from orchestrator import isolation, isolation_git, isolation_view
from orchestrator.config import Config
from orchestrator.config_tables import Isolation
from orchestrator.errors import ConfigError
from orchestrator.isolation_view import Scene
from tests.unit.repositories import git


def works() -> str:
    """A machine that can."""
    return ""


def fails() -> str:
    """One that cannot."""
    return "bubblewrap is not installed"


@pytest.mark.parametrize(
    ("settings", "wanted", "isolated"),
    [
        (Isolation(), None, True),
        (Isolation(mode="workspace"), None, True),
        (Isolation(mode="off"), None, False),
        (Isolation(mode="off"), "workspace", True),
        (Isolation(), "off", False),
        (Isolation(off_for=("demo",)), None, False),
        (Isolation(off_for=("demo",)), "workspace", True),
        (Isolation(off_for=("claude",)), None, True),
    ],
)
def test_the_ticket_then_the_driver_then_the_configuration(
    settings: Isolation, wanted: str | None, *, isolated: bool
) -> None:
    """The nearest word counts."""
    assert isolation.decide(settings, "demo", wanted, works).isolated is isolated


def test_where_it_cannot_be_had() -> None:
    """Without having been asked for it runs, with the reason; else it is refused, with what to do."""
    found = isolation.decide(Isolation(), "demo", None, fails)
    assert (found.isolated, found.reason) == (False, "bubblewrap is not installed")
    for settings, wanted in ((Isolation(mode="workspace"), None), (Isolation(), "workspace")):
        with pytest.raises(ConfigError, match="bubblewrap is not installed") as caught:
            isolation.decide(settings, "demo", wanted, fails)
        assert "apt install bubblewrap" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("MC_ISOLATION_MODE", "on", "auto"),
        ("MC_ISOLATION_NETWORK", "host", "full"),
        ("MC_ISOLATION_READ_WRITE", "relative", "begins with /"),
        ("MC_ISOLATION_HIDE", "~/../x", "no .. in it"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, key: str, value: str, hint: str) -> None:
    """With the key, and what to write."""
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), key: value}
    with pytest.raises(ConfigError, match="isolation") as caught:
        configuration.load(environ)
    assert hint in caught.value.hint


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A chat ticket of an operator with a few things at home."""
    home = tmp_path / "home"
    for folder in (".ssh", ".config/gh", ".cache", "src"):
        (home / folder).mkdir(parents=True)
    (home / ".netrc").write_text("password")
    config = Config(
        config_dir=home / ".config/mission-control", state_dir=home / ".local/state/mission-control",
        runtime_dir=tmp_path / "run/mission-control",
    )  # fmt: skip
    paths = config.ticket_paths(7)
    for folder in (config.config_dir, paths.chat_folder, paths.agent_folder, paths.cache_folder,
                   paths.runtime / "requests"):  # fmt: skip
        folder.mkdir(parents=True)
    paths.sidecar_path.touch()
    return Scene(
        config=config, paths=paths, cwd=paths.chat_folder, home=home, cache=home / ".cache",
        network="full",
    )  # fmt: skip


def mounts(scene: Scene) -> dict[str, str]:
    """What is done at each path, the last word counting."""
    words = isolation_view.arguments(scene)
    found = {}
    for at, word in enumerate(words):
        if word in {"--bind", "--ro-bind", "--dev-bind"}:
            found[words[at + 2]] = f"{word[2:]} {words[at + 1]}"
        elif word == "--tmpfs":
            found[words[at + 1]] = f"tmpfs {words[at - 1]}"
    return found


def test_keys_and_state_are_hidden_and_work_is_not(scene: Scene) -> None:
    """What is not there needs no rule; a file is hidden as well as a folder."""
    found = mounts(scene)
    home = scene.home
    for hidden in (
        home / ".ssh",
        home / ".config/gh",
        scene.config.state_dir,
        scene.config.config_dir,
    ):
        assert found[str(hidden)] == "tmpfs 0100"
    assert found[str(home / ".netrc")] == "ro-bind /dev/null"
    assert str(home / ".aws") not in found
    work = str(scene.paths.chat_folder)
    assert found[work] == f"bind {work}"
    assert found[str(home / ".cache")] == f"bind {scene.paths.cache_folder}"
    assert not any(path.startswith(str(scene.paths.folder / "pane")) for path in found)


def test_the_deepest_rule_counts(scene: Scene) -> None:
    """A home that may be written leaves keys hidden; one file of a hidden folder may be shown."""
    (scene.home / ".ssh/known_hosts").touch()
    settings = Isolation(read_write=("~/",), read_only=("~/.ssh/known_hosts",), hide=("~/src",))
    words = isolation_view.arguments(
        replace(scene, config=replace(scene.config, isolation=settings))
    )
    places = [
        words.index(str(path))
        for path in (scene.home, scene.home / ".ssh", scene.home / ".ssh/known_hosts")
    ]
    assert places == sorted(places)
    found = mounts(replace(scene, config=replace(scene.config, isolation=settings)))
    assert found[str(scene.home)].startswith("bind ")
    assert found[str(scene.home / ".ssh")] == "tmpfs 0100"
    assert found[str(scene.home / "src")] == "tmpfs 0100"


def test_a_link_is_hidden_where_it_leads(scene: Scene, tmp_path: Path) -> None:
    """Keys on another disk are keys."""
    elsewhere = tmp_path / "disk/keys"
    elsewhere.mkdir(parents=True)
    (scene.home / ".aws").symlink_to(elsewhere)
    assert mounts(scene)[str(elsewhere)] == "tmpfs 0100"


def test_networks(scene: Scene) -> None:
    """The machine's; one of its own; one without even a loopback."""
    assert "--unshare-net" not in isolation_view.arguments(scene)
    for network in ("loopback", "none"):
        assert "--unshare-net" in isolation_view.arguments(replace(scene, network=network))
    assert isolation_view.command(scene, ["agent"]) == ["agent"]
    assert isolation_view.command(replace(scene, network="none"), ["agent"])[0] == "unshare"


def test_the_environment_leads_nowhere(scene: Scene) -> None:
    """Agents, buses and displays are not named; git signs nothing, and keeps what it was told."""
    given = {"SSH_AUTH_SOCK": "/x", "DISPLAY": ":0", "GIT_CONFIG_COUNT": "1", "KEY": "kept"}
    given |= {"GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "c"}
    found = isolation_view.environ(scene, given)
    assert not found.keys() & {"SSH_AUTH_SOCK", "DISPLAY"}
    assert found["KEY"] == "kept"
    assert found["GIT_CONFIG_KEY_0"] == "a.b"
    names = [found[f"GIT_CONFIG_KEY_{n}"] for n in range(int(found["GIT_CONFIG_COUNT"]))]
    assert "commit.gpgSign" in names


def test_of_a_repository_only_ones_own_is_writable(tmp_path: Path) -> None:
    """Objects, the branch's folder, the worktree's own; other branches as they are, and no settings."""
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    git(repo, "commit", "-q", "--allow-empty", "-m", "first")
    git(repo, "branch", "feature/x")
    tree = tmp_path / "wt/ticket-7"
    git(repo, "worktree", "add", "-q", "-b", "ticket-7", str(tree))
    rules = {rule.path: rule.kind for rule in isolation_git.rules(repo, tree, "ticket-7")}
    common, admin = repo / ".git", repo / ".git/worktrees/ticket-7"
    written = {path for path, kind in rules.items() if kind == "write"}
    assert written == {
        common / "objects", common / "refs/heads", common / "logs/refs/heads", admin,
    }  # fmt: skip
    for path in (
        common, common / "objects/pack", common / "refs/heads/main", common / "refs/heads/feature",
        common / "logs/refs/heads/main", admin / "commondir", admin / "gitdir",
        admin / "config.worktree", tree / ".git",
    ):  # fmt: skip
        assert rules[path] == "read", path
    assert common / "refs/heads/ticket-7" not in rules
    (tree / ".git").unlink()
    os.symlink("/etc/passwd", tree / ".git")
    assert tree / ".git" not in {r.path for r in isolation_git.rules(repo, tree, "ticket-7")}
