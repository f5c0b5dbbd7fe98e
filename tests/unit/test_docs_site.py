"""The documents as a site: built strictly, with every page in its navigation and no link that leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
make_site = pytest.importorskip("tests.make_site")

ROOT = Path(__file__).resolve().parents[2]


def built(tmp_path: Path) -> list[str]:
    """What is wrong with the site."""
    wrong: list[str] = make_site.build_site(tmp_path / "source", tmp_path / "site")
    return wrong


def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    """No warning: each page is in the navigation, each link and anchor leads somewhere, pictures are there."""
    assert built(tmp_path) == []
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|source)\b[^>]*>", text):
            fetched = re.search(r"\b(?:src|href)=\"?(https?:)?//", tag)
            assert not fetched or "canonical" in tag, f"{page.name} fetches: {tag}"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](units.md#gone)", "#gone"),
        ("![gone](images/gone.png)", "gone.png"),
        ("[gone](../SECURITY.md#gone)", "#gone"),
    ],
)
def test_a_link_that_leads_nowhere_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, added: str, said: str
) -> None:
    """To a page, a heading, a picture, a page outside of docs/."""
    laid_out = make_site.lay_out

    def with_that(source: Path) -> None:
        laid_out(source)
        with (source / "docs/why.md").open("a", encoding="utf-8") as page:
            page.write(f"\n{added}\n")

    monkeypatch.setattr(make_site, "lay_out", with_that)
    assert any(said in line for line in built(tmp_path))
