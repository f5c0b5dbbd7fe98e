"""A question of the agent's, in the pane: how it looks, and which typed line answers it.

Beside the flow: used by `stream_agent.py` alone. Only a line that is exactly an answer answers:
`y`, `yes`, `n`, `no` (with a reason behind it), or the number of an option. Any other text is a
message that was meant for later, so that nobody approves a thing by going on to type. Pure but for
the request's files, which its `Asking` keeps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.asking import Asking
from orchestrator.demo_screen import ACCENT, BOLD, DIM, Row, plain, wrap

MAX_SHOWN_ROWS = 16  # of what a tool is to do; the sidecar has it all
QUESTION_TOOL = "AskUserQuestion"
_NO = re.compile(r"(?:n|no)(?:[\s,.:;]+(?P<why>.*))?", re.IGNORECASE | re.DOTALL)
_NUMBERS = re.compile(r"[1-9][0-9]?(?:[\s,]+[1-9][0-9]?)*", re.ASCII)
_OWN_WORDS = re.compile(r"0\s+(?P<text>.*\S)", re.DOTALL)
#: of the arguments of the tools that are most often asked about: what says what they will do
_TELLING = (
    "command",
    "file_path",
    "notebook_path",
    "path",
    "url",
    "query",
    "pattern",
    "plan",
    "prompt",
)


def summary(tool: str, arguments: Mapping[str, Any]) -> str:
    """One tool call in a few words, as in `Bash(ls -l)`."""
    known = next((arguments[key] for key in _TELLING if isinstance(arguments.get(key), str)), None)
    text = (
        known
        if known is not None
        else json.dumps(arguments, ensure_ascii=False)
        if arguments
        else ""
    )
    first, more, _ = plain(text).partition("\n")
    return f"{plain(tool)}({first[:200]}{'…' if more or len(first) > 200 else ''})"


class Dialog:
    """One open question.

    Args:
        request_id: the agent's own name for it.
        tool: that wants to run.
        arguments: of the tool.
        asking: where the same question can be answered from elsewhere.
    """

    def __init__(
        self, request_id: str, tool: str, arguments: dict[str, Any], asking: Asking
    ) -> None:
        self.request_id, self.tool, self.arguments, self.asking = (
            request_id,
            tool,
            arguments,
            asking,
        )
        self._answers: dict[str, str] = {}
        questions = arguments.get("questions") if tool == QUESTION_TOOL else None
        self._questions = [q for q in questions or [] if isinstance(q, dict)]

    @property
    def is_question(self) -> bool:
        """Whether the agent asks for an answer, not for leave."""
        return bool(self._questions)

    def take(self, line: str) -> dict[str, object] | None:
        """The answer that a typed line completes, as `Asking.read` gives them; else None."""
        text = line.strip()
        if refusal := _NO.fullmatch(text):
            return {"behavior": "deny", "message": (refusal["why"] or "").strip(), "by": "pane"}
        if not self._questions:
            return {"behavior": "allow", "by": "pane"} if text.lower() in {"y", "yes"} else None
        return self._choose(text)

    def understands(self, line: str) -> bool:
        """Whether the line is for the dialog, and no message."""
        text = line.strip()
        if _NO.fullmatch(text):
            return True
        if not self._questions:
            return text.lower() in {"y", "yes"}
        return bool(_NUMBERS.fullmatch(text) or _OWN_WORDS.fullmatch(text))

    def _chosen(self, text: str) -> str:
        question = self._questions[len(self._answers)]
        if own := _OWN_WORDS.fullmatch(text):
            return own["text"]
        if not _NUMBERS.fullmatch(text):
            return ""
        numbers = [int(n) for n in re.split(r"[\s,]+", text)]
        labels = _labels(question)
        if max(numbers) > len(labels) or (len(numbers) > 1 and not question.get("multiSelect")):
            return ""
        return ", ".join(labels[n - 1] for n in numbers)

    def _choose(self, text: str) -> dict[str, object] | None:
        if chosen := self._chosen(text):
            asked = str(self._questions[len(self._answers)].get("question", ""))
            self._answers[asked] = chosen
        if len(self._answers) < len(self._questions):
            return None
        updated = {**self.arguments, "answers": self._answers}
        return {"behavior": "allow", "updated_input": updated, "by": "pane"}

    def rows(self, box: str, width: int, others: int) -> list[Row]:
        """What the pane shows in place of its input box."""
        more = f" ({others} more wait)" if others else ""
        rule = Row("─" * (width - 1), ACCENT)
        if self._questions:
            shown = self._question_rows(width, more)
        else:
            shown = [Row(f" {plain(self.tool)}: may it?{more}", BOLD), *self._details(width)]
            help_text = " y allows · n, and why, refuses · other text waits for the end of the turn"
            shown.append(Row(help_text, DIM))
        typed = wrap(plain(box), width - 3)[-3:]
        return [rule, *shown, *(Row(t, ACCENT, "  " if n else "? ") for n, t in enumerate(typed))]

    def _question_rows(self, width: int, more: str) -> list[Row]:
        question = self._questions[min(len(self._answers), len(self._questions) - 1)]
        shown = [
            Row(f" {t}", BOLD) for t in wrap(plain(str(question.get("question"))) + more, width - 3)
        ]
        for number, option in enumerate(_options(question), start=1):
            about = f" - {option['description']}" if option.get("description") else ""
            text = plain(f"{number}. {option.get('label', '')}{about}")
            shown += [Row(f"   {t}") for t in wrap(text, width - 5)]
        several = " (several: 1,3)" if question.get("multiSelect") else ""
        shown.append(Row(f" a number{several} answers · 0 and your own words · n refuses", DIM))
        return shown

    def _details(self, width: int) -> list[Row]:
        parts = []
        for key, value in self.arguments.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parts.append(text if key in _TELLING else f"{key}: {text}")
        rows = [f"   {t}" for part in parts for t in wrap(plain(part[:20_000]), width - 5)]
        hidden = len(rows) - MAX_SHOWN_ROWS
        if hidden > 0:
            rows = [*rows[:MAX_SHOWN_ROWS], f"   … {hidden} more lines"]
        return [Row(row) for row in rows]


def _options(question: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [o for o in question.get("options") or [] if isinstance(o, dict)]


def _labels(question: Mapping[str, Any]) -> list[str]:
    return [str(option.get("label", "")) for option in _options(question)]
