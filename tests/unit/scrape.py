"""What a scrape of /metrics says, without a gateway around it."""

from __future__ import annotations

from pathlib import Path

from orchestrator.config import Config
from orchestrator.store.db import Database
from webgate import metrics
from webgate.piped import Piped
from webgate.turns import Turns

NOWHERE = Path("/nonexistent")


def said(
    database: Database, turns: Turns | None = None, *, state: Path = NOWHERE, accept: str = ""
) -> str:
    """The text, of a gateway with one stream on one pane."""
    config = Config(state_dir=state, runtime_dir=state)
    sources = metrics.Sources(
        config=config, database=database, turns=turns or Turns(), piped=Piped(state / "tickets"),
        streams=lambda: 1, panes=lambda: 1,
    )  # fmt: skip
    return metrics.render(sources, accept)[0].decode()
