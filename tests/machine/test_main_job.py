"""The main job on a booted machine: a ticket is a systemd user unit, start to end.

With the demo agent and plain programs; tests/claude does the same with the real Claude Code CLI.
"""

from __future__ import annotations

import pytest

from tests.machine.machine import Machine
from tests.machine.product import CONFIG, HOME, STATE, Product


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module; each makes tickets of its own."""
    made = Product(module_machine)
    made.make_repository()
    return made


def demo(product: Product, title: str = "Say hello", *args: str) -> int:
    """A demo ticket that has started and answered its first prompt."""
    ticket = product.new(title, "--driver", "demo", *args)
    product.systemctl("start", f"ticket@{ticket}")
    product.machine.wait_for(lambda: product.hooks(ticket, "Stop"), what="the first answer")
    return ticket


def test_the_agent_is_the_units_main_process(product: Product) -> None:
    """`systemctl --user status` shows the agent itself in the unit's cgroup, and nothing of ours."""
    ticket = demo(product)
    unit = product.unit(ticket)
    assert unit["ActiveState"] == "active"
    command = product.machine.run(["ps", "-o", "args=", "-p", unit["MainPID"]]).stdout
    assert "orchestrator.demo_agent" in command
    product.machine.wait_for(
        lambda: product.agent_pids(ticket) == [product.main_pid(ticket)], what="the launcher left"
    )
    status = product.systemctl("status", f"ticket@{ticket}").stdout
    assert "conversation" in status
    assert "orchestrator.demo_agent" in status


def test_children_are_born_inside_the_unit(product: Product) -> None:
    """Whatever the agent starts, from its first moment on, is in the ticket's cgroup."""
    ticket = product.new(
        "kids", "--driver", "command", "--", "sh", "-c", "setsid sleep 600 & sleep 601"
    )
    product.ctl("start", str(ticket))
    product.machine.wait_for(lambda: len(product.agent_pids(ticket)) == 3, what="both children")
    product.systemctl("stop", f"ticket@{ticket}")
    assert product.machine.run(["pgrep", "-f", "sleep 60[01]"], check=False).stdout == ""


def test_a_message_is_answered(product: Product) -> None:
    """What is sent reaches the worker once; the answer is on the screen, in the log, in the sidecar."""
    ticket = demo(product)
    product.say(ticket, "hello what is 2+2")
    product.wait_screen(ticket, "2 + 2 = 4")
    assert "2 + 2 = 4" in product.pane_log(ticket)
    prompts = [p["prompt"] for p in product.hooks(ticket, "UserPromptSubmit")]
    assert prompts == ["Say hello", "hello what is 2+2"]
    assert product.show(ticket)["status"] == "in_progress"


def test_a_message_waits_while_a_dialog_is_shown(product: Product) -> None:
    """A message never answers a permission prompt: it is held, and delivered afterwards."""
    ticket = demo(product)
    product.say(ticket, "permission please")
    product.machine.wait_for(
        lambda: product.show(ticket)["turn_state"] == "waiting_permission", what="the dialog"
    )
    message = product.send(ticket, "this must not approve it")
    product.machine.run(["sleep", "1"])  # ten of the dispatcher's looks
    assert product.outcome(ticket, message) == "queued"
    assert not product.hooks(ticket, "PostToolUse")
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "2"])  # No
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) == "confirmed", what="delivery"
    )
    assert not product.hooks(ticket, "PostToolUse")


@pytest.mark.fault(8)
def test_stop_ends_all_of_it_and_is_no_failure(product: Product) -> None:
    """A stop ends the agent in good order, and children that ignore every signal, in time."""
    ticket = demo(product)
    product.systemctl("stop", f"ticket@{ticket}")
    assert product.unit(ticket)["ActiveState"] == "inactive"
    assert [e["reason"] for e in product.hooks(ticket, "SessionEnd")] == ["other"]
    assert product.show(ticket)["status"] == "open"
    stubborn = product.new(
        "stubborn", "--driver", "command", "--",
        "sh", "-c", "trap '' HUP TERM INT; (trap '' HUP TERM; sleep 602) & while :; do sleep 603; done",
    )  # fmt: skip
    product.ctl("start", str(stubborn))
    product.machine.wait_for(lambda: len(product.agent_pids(stubborn)) >= 3, what="the family")
    product.systemctl("stop", f"ticket@{stubborn}")
    assert product.machine.run(["pgrep", "-f", "sleep 60[23]"], check=False).stdout == ""
    assert product.unit(stubborn)["Result"] == "success"


def test_a_killed_agent_comes_back_on_its_conversation(product: Product) -> None:
    """kill -9: systemd starts it again by itself, and the conversation goes on."""
    ticket = demo(product)
    before = product.main_pid(ticket)
    product.machine.sh(f"kill -9 {before}")
    product.machine.wait_for(
        lambda: (
            product.main_pid(ticket) not in {0, before}
            and product.unit(ticket)["ActiveState"] == "active"
        ),
        what="another main process",
    )
    product.wait_screen(ticket, "resumed, 2 messages")
    product.say(ticket, "still there?")
    assert [s["source"] for s in product.hooks(ticket, "SessionStart")] == ["startup", "resume"]
    assert [p["prompt"] for p in product.hooks(ticket, "UserPromptSubmit")] == [
        "Say hello",
        "still there?",
    ]


def test_exit_typed_by_the_operator_is_no_failure(product: Product) -> None:
    """An agent that leaves by itself leaves the unit inactive, not failed, and not restarted."""
    ticket = demo(product)
    product.type(ticket, "/exit")
    product.wait_active(ticket, "inactive")
    assert product.unit(ticket)["Result"] == "success"
    assert product.unit(ticket)["NRestarts"] == "0"
    assert product.machine.run(
        ["tmux", "has-session", "-t", f"=ticket-{ticket}"], check=False
    ).returncode


@pytest.mark.fault(21)
def test_an_agent_that_cannot_stay_ends_failed(product: Product) -> None:
    """/bin/false: tried a bounded number of times, then failed, with a sentence; others unharmed."""
    other = demo(product)
    pid = product.main_pid(other)
    ticket = product.new("false", "--driver", "command", "--", "/bin/false")
    product.systemctl("start", f"ticket@{ticket}", check=False)
    product.wait_active(ticket, "failed")
    assert int(product.unit(ticket)["NRestarts"]) <= 5
    assert (
        "exited with status 1"
        in product.systemctl("status", f"ticket@{ticket}", check=False).stdout
    )
    assert product.main_pid(other) == pid


@pytest.mark.fault(21)
def test_a_missing_program_is_said(product: Product) -> None:
    """No claude binary: failed at once, with a sentence in `systemctl status` and in ticketctl."""
    ticket = product.new("no such thing", "--repo", product.make_repository())
    product.systemctl("start", f"ticket@{ticket}", check=False)
    unit = product.unit(ticket)
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "78", "0")
    assert "Claude Code CLI is not installed" in unit["StatusText"]
    assert (
        "Claude Code CLI is not installed"
        in product.systemctl("status", f"ticket@{ticket}", check=False).stdout
    )
    done = product.ctl("start", str(ticket), check=False)
    assert "Claude Code CLI is not installed" in done.stderr
    assert done.stdout == ""
    assert done.returncode == 5


def test_a_ticket_that_does_not_exist_is_said_once(product: Product) -> None:
    """Ticket 99 that is not there: exit 78 with a sentence, no restart loop, nothing made."""
    done = product.systemctl("start", "ticket@99999", check=False)
    assert done.returncode
    unit = product.unit(99999)
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "78", "0")
    assert (
        "There is no ticket 99999."
        in product.systemctl("status", "ticket@99999", check=False).stdout
    )
    assert product.machine.run(["test", "-e", f"{STATE}/tickets/99999"], check=False).returncode


@pytest.mark.parametrize("name", ["0", "-1", "007", "1e3", "1;id", "..", "%i", "9999999999", "x"])
@pytest.mark.fault(27)
def test_an_id_that_is_no_number_touches_nothing(product: Product, name: str) -> None:
    """A unit instance that is no ticket number is refused before any file or session is made."""
    unit = product.machine.run(
        ["systemd-escape", "--template=ticket@.service", "--", name]
    ).stdout.strip()
    product.systemctl("start", unit, check=False)
    shown = product.systemctl("show", unit, "-p", "ExecMainStatus,NRestarts").stdout
    assert set(shown.split()) == {"NRestarts=0", "ExecMainStatus=78"}
    product.systemctl("reset-failed", unit, check=False)


def test_targets_are_exact(product: Product) -> None:
    """Stopping ticket 4 leaves tickets 42 and 421 alone, though tmux matches names by prefix."""
    for number in (742, 7421):
        demo(product, "prefix", "--id", str(number))
    before = [product.main_pid(n) for n in (742, 7421)]
    # ticket 74 never ran: its session would be the prefix of both
    product.new("prefix", "--driver", "demo", "--id", "74")
    product.machine.run(
        [f"{HOME}/.local/share/mission-control/venv/bin/mc-launch", "ended", "74"], check=False
    )
    product.systemctl("stop", "ticket@74")
    assert [product.main_pid(n) for n in (742, 7421)] == before
    product.say(742, "only for me")
    assert "only for me" not in product.screen(7421)


def test_a_worktree_of_its_own(product: Product) -> None:
    """A code ticket works in ../wt/ticket-N on branch ticket-N; what is in the way is not touched."""
    repo = product.make_repository()
    ticket = demo(product, "code", "--repo", repo)
    tree = f"{HOME}/src/wt/ticket-{ticket}"
    assert (
        product.machine.run(["git", "-C", tree, "branch", "--show-current"]).stdout
        == f"ticket-{ticket}\n"
    )
    pid = product.main_pid(ticket)
    assert product.machine.run(["readlink", f"/proc/{pid}/cwd"]).stdout.strip() == tree
    assert (
        product.show(ticket)["base_sha"]
        == product.machine.run(["git", "-C", repo, "rev-parse", "HEAD"]).stdout.strip()
    )
    blocked = product.new("blocked", "--driver", "demo", "--repo", repo)
    product.machine.sh(
        f"mkdir -p {HOME}/src/wt/ticket-{blocked}; echo mine > {HOME}/src/wt/ticket-{blocked}/file"
    )
    product.systemctl("start", f"ticket@{blocked}", check=False)
    assert product.unit(blocked)["ExecMainStatus"] == "78"
    assert (
        "exists and is no worktree"
        in product.systemctl("status", f"ticket@{blocked}", check=False).stdout
    )
    assert product.read(f"{HOME}/src/wt/ticket-{blocked}/file") == "mine\n"


def test_a_session_that_is_not_ours_is_not_killed(product: Product) -> None:
    """A session of that name made by somebody else: refused with the name, and left as it is."""
    ticket = product.new("in the way", "--driver", "demo")
    product.machine.run(["tmux", "new-session", "-d", "-s", f"ticket-{ticket}", "sleep", "604"])
    product.systemctl("start", f"ticket@{ticket}", check=False)
    assert product.unit(ticket)["ExecMainStatus"] == "78"
    assert (
        f"ticket-{ticket} is there already"
        in product.systemctl("status", f"ticket@{ticket}", check=False).stdout
    )
    assert product.machine.run(["pgrep", "-f", "sleep 604"]).stdout
    product.machine.run(["tmux", "kill-session", "-t", f"=ticket-{ticket}"])


def test_a_dead_pane_is_in_nobodys_way(product: Product) -> None:
    """A session whose program has ended, left over in whatever way: the start removes it."""
    ticket = product.new("left over", "--driver", "command", "--", "sleep", "605")
    tmux = "tmux new-session -d -s ticket-{0} 'sleep 1; exit 3' ';' set-option -w remain-on-exit on"
    product.machine.sh(tmux.format(ticket))
    product.machine.wait_for(
        lambda: product.machine.run(
            ["tmux", "list-panes", "-t", f"=ticket-{ticket}:", "-F", "#{pane_dead_status}"]
        ).stdout.strip() == "3",
        what="a dead pane",
    )  # fmt: skip
    product.ctl("start", str(ticket))
    assert product.unit(ticket)["ActiveState"] == "active"
    shown = product.machine.run(
        ["tmux", "list-panes", "-s", "-t", f"=ticket-{ticket}", "-F", "#{pane_dead} #{pane_pid}"]
    ).stdout.split()
    assert shown[0] == "0"
    assert len(shown) == 2
    product.ctl("stop", str(ticket))


def test_the_agent_gets_its_units_environment(product: Product) -> None:
    """Environment= of the ticket's unit reaches the agent; tmux's and systemd's own words do not."""
    ticket = product.new("env", "--driver", "command", "--", "sh", "-c", "env -0; sleep 605")
    drop_in = f"{HOME}/.config/systemd/user/ticket@{ticket}.service.d"
    text = '[Service]\nEnvironment="HELLO=a b\'c"\n'
    product.machine.run(["sh", "-c", f"mkdir -p {drop_in}; cat > {drop_in}/e.conf"], input=text)
    product.systemctl("daemon-reload")
    product.ctl("start", str(ticket))
    pid = product.main_pid(ticket)
    environ = dict(
        item.split("=", 1)
        for item in product.machine.run(["cat", f"/proc/{pid}/environ"]).stdout.split("\0")
        if item
    )
    assert environ["HELLO"] == "a b'c"
    assert environ["PATH"].startswith(f"{HOME}/.local/bin:")
    unwanted = {"TMUX", "TMUX_PANE", "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID"}
    assert not unwanted & environ.keys()
    runtime = f"/run/user/1000/mission-control/ticket-{ticket}"
    left = product.machine.run(["find", runtime, "!", "-type", "d"]).stdout
    assert left == "", "the script that held the environment is gone"


def test_hostile_words_are_data(product: Product) -> None:
    """No shell, tmux format, option or key name comes out of a title or a prompt."""
    words = "$(touch /tmp/pwned) `touch /tmp/pwned` #(touch /tmp/pwned) ; touch /tmp/pwned;\n-R 'quo\"te' \\"
    ticket = product.new("--driver", "demo", "--prompt", words, "--", f"-- {words}")
    product.systemctl("start", f"ticket@{ticket}")
    product.machine.wait_for(lambda: product.hooks(ticket, "UserPromptSubmit"), what="the prompt")
    assert product.hooks(ticket, "UserPromptSubmit")[0]["prompt"] == words
    for text in (
        ";",
        "a;",
        "-R",
        "Enter",
        "#{pane_title} #(touch /tmp/pwned)",
        "naïve 漢字 👩‍👩‍👧 e\u0301",
    ):
        product.say(ticket, text)
    heard = [p["prompt"] for p in product.hooks(ticket, "UserPromptSubmit")][1:]
    assert heard == [
        ";",
        "a;",
        "-R",
        "Enter",
        "#{pane_title} #(touch /tmp/pwned)",
        "naïve 漢字 👩‍👩‍👧 e\u0301",
    ]
    assert product.machine.run(["test", "-e", "/tmp/pwned"], check=False).returncode
    for text in ("ESC\x1b[201~", "bell\x07", "nul-free \x9b"):
        refused = product.ctl("send", str(ticket), text, check=False)
        assert refused.returncode == 2
        assert "control character" in refused.stderr


def test_two_at_once_are_both_there(product: Product) -> None:
    """Ten tickets started in one command all run, each with its own process and its own log."""
    tickets = [product.new(f"one of ten {n}", "--driver", "demo") for n in range(10)]
    product.systemctl("start", *(f"ticket@{t}" for t in tickets))
    assert len({product.main_pid(t) for t in tickets} - {0}) == 10
    for ticket in tickets:
        product.wait_screen(ticket, f"one of ten {tickets.index(ticket)}")
    product.systemctl("stop", *(f"ticket@{t}" for t in tickets))


def test_a_killed_tmux_server_brings_every_ticket_back(product: Product) -> None:
    """kill -9 of the tmux server: it and its tickets are back, on the same conversations."""
    tickets = [demo(product) for _ in range(2)]
    before = [product.main_pid(t) for t in tickets]
    product.systemctl("kill", "--signal=KILL", "tmux-mc.service")
    product.machine.wait_for(
        lambda: (
            all(product.unit(t)["ActiveState"] == "active" for t in tickets)
            and not {product.main_pid(t) for t in tickets} & {0, *before}
        ),
        what="both are back",
    )
    for ticket in tickets:
        product.wait_screen(ticket, "resumed")
    assert {
        p.split()[0] for p in product.machine.run(["ps", "-eo", "pid"]).stdout.splitlines()
    }.isdisjoint({str(p) for p in before})


def test_one_reads_the_story_in_the_journal(product: Product) -> None:
    """`journalctl --user TICKET_ID=N` tells starts, messages and ends; message bodies are not in it."""
    ticket = demo(product)
    product.say(ticket, "a secret sentence")
    product.systemctl("stop", f"ticket@{ticket}")
    told = product.machine.run(["journalctl", "--user", f"TICKET_ID={ticket}", "-o", "cat"]).stdout
    assert "worker started" in told
    assert "confirmed" in told
    assert "it was stopped" in told
    assert "secret" not in product.machine.journal()


def test_attach_and_log(product: Product) -> None:
    """`tmux attach -t ticket-N` on the default socket is a seat in front of it; so is ticketctl attach."""
    ticket = demo(product)
    with product.machine.pty(
        ["tmux", "attach", "-t", f"ticket-{ticket}"], columns=120, rows=40
    ) as seat:
        seat.expect(rb"demo agent")
        seat.send(b"what is 20+3\r")
        seat.expect(rb"20 \+ 3 = 23")
    with product.machine.pty(
        ["/home/op/.local/bin/ticketctl", "attach", str(ticket)], columns=120, rows=40
    ) as seat:
        seat.expect(rb"demo agent")
    assert "20 + 3 = 23" in product.ctl("log", str(ticket)).stdout


def test_files_are_private(product: Product) -> None:
    """Files 0600, folders 0700."""
    ticket = demo(product)
    out = product.machine.sh(
        f"find {STATE}/tickets/{ticket} {STATE}/token -printf '%y %m %p\\n'"
    ).stdout
    for line in out.splitlines():
        kind, mode, path = line.split(" ", 2)
        assert mode == ("700" if kind == "d" else "600"), path


def test_list_and_show_speak_json(product: Product) -> None:
    """--json is what programs read: an array of tickets, one object."""
    import json  # noqa: PLC0415

    ticket = demo(product)
    listed = json.loads(product.ctl("list", "--json").stdout)
    assert ticket in [t["id"] for t in listed]
    shown = product.show(ticket)
    assert shown["unit"]["active"] == "active"
    assert shown["worker_pid"] == product.main_pid(ticket)
    assert product.ctl("show", "123456", check=False).returncode == 4
    assert product.read(f"{CONFIG}/config.toml").startswith("# Mission Control")
