"""What documents point at exists: links between files, recipes of the justfile, decision records that comments cite."""

from __future__ import annotations

import re
from collections import Counter

from tests.tidy.tree import ROOT, report, sources

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
RECIPE = re.compile(r"^([a-z][a-z-]*)(?: [^:=]*)?:(?!=)", re.MULTILINE)
NAMED_RECIPE = re.compile(r"(?:^|`|/)just ([a-z][a-z-]+)\b", re.MULTILINE)
CITED_RECORD = re.compile(r"docs/adr/(\d{4})\b")


def test_every_link_between_documents_leads_to_a_file() -> None:
    dangling = [
        f"{source.path}: [{target}] leads nowhere."
        for source in sources()
        if source.path.endswith(".md") and source.name != "template.md"
        for target in LINK.findall(source.text)
        if not ((ROOT / source.path).parent / target).exists()
    ]
    assert not dangling, report(dangling)


def test_every_recipe_that_a_document_names_exists() -> None:
    recipes = set(RECIPE.findall((ROOT / "justfile").read_text(encoding="utf-8")))
    unknown = [
        f"{source.path}: `just {name}` is no recipe; `just` lists them."
        for source in sources()
        if source.path.endswith(".md")
        for name in NAMED_RECIPE.findall(source.text)
        if name not in recipes
    ]
    assert not unknown, report(unknown)


def test_every_decision_record_that_is_cited_was_written() -> None:
    written = {path.name[:4] for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")}
    missing = [
        f"{source.path}: docs/adr/{number} is cited and does not exist."
        for source in sources()
        for number in CITED_RECORD.findall(source.text)
        if number not in written
    ]
    assert not missing, report(missing)


def test_every_record_has_a_number_of_its_own() -> None:
    """Two people may take the next free one in the same hour: who comes second takes another."""
    numbers = Counter(path.name[:4] for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [number for number, records in numbers.items() if records > 1] == []
