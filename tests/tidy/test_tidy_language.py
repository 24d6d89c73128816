"""The language is complete: each event has an example and a catalogue entry, each refusal a text in two languages."""

from __future__ import annotations

import ast
import re

from proto.codes import CODES
from services.contracts import event_catalogue, language
from services.contracts.golden import golden_path
from tests.tidy.tree import ROOT, dotted, python, report

WIRE_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


def test_every_event_is_in_its_services_union() -> None:
    spoken = {each.event for each in language.events()}
    missing = [
        f"proto/{service}/events.py: {event.__name__} is in no union; add it to AnyEvent or delete it."
        for service in language.event_packages()
        for event in language.defined(service)
        if event not in spoken
    ]
    assert not missing, report(missing)


def test_a_wire_name_is_noun_dot_past_and_said_by_one_service() -> None:
    names = [each.wire_name for each in language.events()]
    assert len(names) == len(set(names)), "two events share a wire name"
    odd = [name for name in names if not WIRE_NAME.fullmatch(name)]
    assert not odd, f"{odd}: a wire name is two lower-case words with a dot (balance.low)"


def test_every_public_event_says_whose_it_is() -> None:
    silent = event_catalogue.public_without_account(language.events())
    assert not silent, f"{silent}: a public event carries account_id, else no subscriber may be given it"


def test_every_event_has_a_golden_file() -> None:
    missing = [each.wire_name for each in language.events() if not (ROOT / golden_path(each)).exists()]
    assert not missing, f"{missing}: write the example with `just golden NAME` and commit it"


def test_every_event_is_in_the_catalogue() -> None:
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    missing = [each.wire_name for each in language.events() if f"### {each.wire_name}\n" not in text]
    assert not missing, f"{missing}: run `just contracts` and commit docs/events.md"


def test_every_refusal_is_in_the_table_with_a_text_in_both_languages() -> None:
    unknown = [
        source.at(node, f"{code} is not in proto/codes.py; add its meaning, status, retry advice and both texts.")
        for source in (*python("services/"), *python("libs/"))
        for node, code in _refusals(source.tree())
        if not source.is_test and code not in CODES and "from libs.refusal import" in source.text
    ]
    assert not unknown, report(unknown)
    wordless = [name for name, code in CODES.items() if not (code.en.strip() and code.pt.strip())]
    assert not wordless, f"{wordless}: a refusal has an English and a Brazilian Portuguese text"


def _refusals(tree: ast.Module) -> list[tuple[ast.AST, str]]:
    """Codes written as literals: `Refused("CODE", …)` and `Refusal("CODE")` / `Refusal(code="CODE")`.

    The stand-in cloud refuses in a cloud's own words; it does not import ours.
    """
    found: list[tuple[ast.AST, str]] = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in {"Refused", "Refusal"}):
            continue
        spoken = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
        found += [
            (node, value.value) for value in spoken if isinstance(value, ast.Constant) and isinstance(value.value, str)
        ]
    return found
