"""The rows of the table, and what each shall come to.

Where a target was set against ttyd and there is none on the machine, it stands against terminado on `tmux
attach` instead, by the proportion of the two where both were measured: 0.56 to 0.78 ms, an echo 0.50 to 0.70, 36
to 25 % of CPU with 500 viewers. How long many viewers wait depends on who reads them: with this harness 1.4 to 1.08
ms with 100 of them and 6.99 to 4.53 with 500 (2026-11-26, five runs).
"""

from __future__ import annotations

from benchmarks.figures import Goal, Sense

PEER = "terminado, tmux attach"
TTYD = "ttyd, tmux attach"
TTYD_LOG = "ttyd, tail of the log"
VIBETUNNEL = "vibetunnel"
LOG = "log and inotify"
MANY = (1, 100, 500, 1000, 2000)
GROWTH = (1, 10, 50, 100)

#: Key, what it is, and how it is measured.
ROWS: dict[str, tuple[str, str]] = {
    "latency": ("Output latency", "a program in a pane prints a stamp each 50 ms, a stream client reads it"),
    "viewers": ("Many viewers of one pane", "the same, ten of the viewers watched"),
    "echo": ("Echo", "a key sent, its echo seen"),
    "flood": ("Flood", "50 MB of numbered lines printed in the pane, until the viewer has the last"),
    "slow": ("A slow viewer", "one that reads 1 KB/s and one that never reads, beside another, in that flood"),
    "start": ("Start of a ticket", "`systemctl --user start` until the agent is exec'd"),
    "message": ("A message", "until the first token of the answer, real CLI, local Messages API"),
    "idle": ("An idle ticket", "a command ticket whose agent sleeps"),
    "product": ("The whole product idle", "PSS of its services, ten idle tickets"),
    "ingest": ("Ingest", "sidecar lines of 1.2 KB, durable in PostgreSQL"),
    "recovery": ("Recovery", "ten tickets; a part killed, or all of it rebooted"),
    "growth": ("Growth", "1 to 100 tickets, a tenth of them printing"),
    "cli": ("Command line", "`ticketctl list` with ten tickets, wall"),
}  # fmt: skip

_LEAST = Sense.AT_LEAST
GOALS = (
    Goal(row="latency", what="p50, 1 viewer", beside=TTYD, bound=1.15, instead=(PEER, 0.83)),
    Goal(row="latency", what="p50, 1 viewer", beside=VIBETUNNEL, bound=0.35),
    Goal(row="latency", what="p99, 1 viewer", beside=TTYD, bound=1.0, instead=(PEER, 1.0)),
    Goal(row="viewers", what="p50, 100 viewers", beside=TTYD, bound=0.5, instead=(PEER, 0.65)),
    Goal(row="viewers", what="p50, 500 viewers", beside=TTYD, bound=0.3, instead=(PEER, 0.46)),
    Goal(row="viewers", what="CPU, 500 viewers", beside=TTYD, bound=0.3, instead=(PEER, 0.43)),
    Goal(row="viewers", what="memory each, 500 viewers", bound=30, unit="KiB"),
    Goal(row="viewers", what="p50, 2000 viewers", bound=20, unit="ms"),
    Goal(row="echo", what="p50", beside=TTYD, bound=2.0, instead=(PEER, 1.43)),
    Goal(row="echo", what="p50", beside=VIBETUNNEL, bound=0.4),
    Goal(row="flood", what="rate", beside=LOG, sense=_LEAST, bound=0.95),
    Goal(row="flood", what="rate", beside=TTYD_LOG, sense=_LEAST, bound=1.3),
    Goal(row="flood", what="share of the bytes", sense=_LEAST, bound=100, unit="%"),
    Goal(row="slow", what="rate beside them", beside="ours", beside_what="rate alone", sense=_LEAST, bound=0.95),
    Goal(row="slow", what="memory of the two", bound=1, unit="MiB"),
    Goal(row="start", what="in all", bound=150, unit="ms"),
    Goal(row="start", what="launcher", bound=60, unit="ms"),
    Goal(row="message", what="first token", ours="ours, stream driver", beside="claude -p --resume", bound=0.05, said="20 × sooner"),
    Goal(row="message", what="first token", ours="ours, TUI", beside="claude -p --resume", bound=0.333, said="3 × sooner"),
    Goal(row="message", what="our own part", ours="ours, stream driver", bound=30, unit="ms"),
    Goal(row="idle", what="processes of ours", bound=0, unit=""),
    Goal(row="idle", what="memory beside the agent's", bound=0.25, unit="MiB"),
    Goal(row="idle", what="wake-ups", bound=0, unit="/s"),
    Goal(row="product", what="gateway, ingest, dispatch", bound=100, unit="MiB"),
    Goal(row="product", what="PostgreSQL", bound=40, unit="MiB"),
    Goal(row="ingest", what="rate", sense=_LEAST, bound=35_000, unit="/s"),
    Goal(row="ingest", what="rate", beside="one COPY", sense=_LEAST, bound=0.5),
    Goal(row="ingest", what="lag of one line", bound=10, unit="ms"),
    Goal(row="recovery", what="tmux killed, all ten run again", bound=2, unit="s"),
    Goal(row="recovery", what="gateway killed, the viewer sees the pane", bound=1, unit="s"),
    Goal(row="recovery", what="reboot, all ten run again", bound=10, unit="s"),
    Goal(row="growth", what="start, 100 tickets", beside="ours", beside_what="start, 10 tickets", bound=1.2),
    Goal(row="growth", what="latency, 100 tickets", beside="ours", beside_what="latency, 10 tickets", bound=1.2),
    Goal(row="growth", what="ingest lag, 100 tickets", beside="ours", beside_what="ingest lag, 10 tickets", bound=1.2),
    Goal(row="growth", what="memory of one more, 50 to 100 tickets", beside="ours", beside_what="memory of one more, 10 to 50 tickets", bound=1.2, said="linear"),
    Goal(row="cli", what="wall", bound=150, unit="ms"),
)  # fmt: skip
