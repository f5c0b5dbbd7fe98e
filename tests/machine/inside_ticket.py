"""Run commands inside a ticket, as its agent would: a program of the command driver that takes them.

Outside the product: the program reads scripts out of its working folder and leaves what they said.
"""

from __future__ import annotations

import subprocess

from tests.machine.product import STATE, Product

_AGENT = """
while :; do
    if mv .run .running 2>/dev/null; then
        sh ./.running > .said 2>&1 < /dev/null
        echo $? > .status.draft
        mv .status.draft .status
    fi
    sleep 0.05
done
"""


class Inside:
    """A ticket that does as it is told.

    Args:
        product: with a repository, where `repo` is given.
        args: of `ticketctl new`, such as --isolation off.
        repo: for a code ticket.
    """

    def __init__(self, product: Product, *args: str, repo: str = "") -> None:
        self.product = product
        where = ["--repo", repo] if repo else []
        self.ticket = product.new(
            "inside", *where, *args, "--driver", "command", "--", "sh", "-c", _AGENT
        )
        product.ctl("start", str(self.ticket))
        shown = product.show(self.ticket)
        self.folder = shown["worktree_path"] or f"{STATE}/tickets/{self.ticket}/work"

    def run(self, script: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a script in there."""
        machine = self.product.machine
        machine.run(
            ["sh", "-c", f"cd {self.folder} && rm -f .status && cat > .draft && mv .draft .run"],
            input=script,
        )
        machine.wait_for(
            lambda: bool(self.product.read(f"{self.folder}/.status")), what=f"the end of {script!r}",
            timeout=timeout,
        )  # fmt: skip
        status = int(self.product.read(f"{self.folder}/.status"))
        said = self.product.read(f"{self.folder}/.said")
        return subprocess.CompletedProcess(["sh"], status, said, "")
