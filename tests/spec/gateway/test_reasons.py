"""Why a request is not valid, in Portuguese: every reason that any route gives for any bad body or query."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from libs.refusal import Refused
from proto.reasons import reason_in
from services.failover.decider.settings import NO_SUCH_CHANNEL
from services.gateway.languages import spoken
from services.gateway.routes import ROUTES
from services.gateway.routing import Route
from services.gateway.validation import read_body, read_query

SERVICES = Path(__file__).parents[3] / "services"
BAD_VALUES: tuple[Any, ...] = (
    None, True, -1, 10**30, 1.5, 1e308, "", "x", "x" * 5_000, "2026-13-45T10:00:00Z", [], [1], ["x"], [None] * 500,
    [{"a": 1}], {}, {"a": 1}, {"a": {}},
)  # fmt: skip
BAD_BODIES = (
    b"{", b"[1]", b"nul", b"{1:2}", b'"\xff"', b'{"a":"\\u0000"}', b'{"a":1}x', b'{"a":"\\q"}', b'{"a":01}',
    b'{"a" 1}', b'{"a":1 "b":2}', b"[" * 20_000,
)  # fmt: skip
BAD_TEXTS = ("", "x", "-1", "nan", "1e999", str(10**30), "x" * 5_000, "\0", "2026-13-45T10:00:00Z")
ENGLISH = re.compile(r"\b(must|be|is|of|got|with|field|length|at|valid|required|unknown|and|the)\b")
# Words, patterns and names that belong to the contract are the same in both languages.
SAME = re.compile(r"(deve ser um de: |deve corresponder a |Campo desconhecido: ).*", re.DOTALL)


def refused(ask: Callable[[], object]) -> Iterator[Refused]:
    try:
        ask()
    except Refused as refusal:
        yield refusal


def refusals(route: Route) -> Iterator[Refused]:
    """What a route says to every field with every bad value, to none, to an unknown one, and to what is no JSON."""
    if (shape := route.body) is not None:
        decoder = msgspec.json.Decoder(shape)
        fields = [field.encode_name for field in msgspec.structs.fields(shape)]
        bodies = [msgspec.json.encode({name: value}) for name in fields for value in BAD_VALUES]
        for raw in (*BAD_BODIES, b"", b'{"nobody_knows_me":1}', *bodies):
            yield from refused(lambda raw=raw: read_body(raw, decoder, shape))
    if (asked := route.query) is not None:
        fields = [field.encode_name for field in msgspec.structs.fields(asked)]
        texts = [urlencode({name: value}) for name in fields for value in BAD_TEXTS]
        for text in ("nobody_knows_me=1", "a=%ff", "a&" * 200, *texts):
            yield from refused(lambda text=text: read_query(text, asked))


def test_no_reason_of_any_route_stays_english_for_who_reads_portuguese() -> None:
    said = {refusal.facts["reason"]: refusal for route in ROUTES for refusal in refusals(route)}
    assert len(said) > 200
    for refusal in said.values():
        facts, english = spoken(refusal.facts, "pt"), spoken(refusal.facts, "en")
        for before, after in zip(english["errors"], facts["errors"], strict=True):
            assert after["reason"] != before["reason"]
            assert not ENGLISH.search(SAME.sub(r"\1", after["reason"])), after["reason"]
            assert {**after, "reason": ""} == {**before, "reason": ""}, "field and value are the same"
        assert facts["reason"] == facts["errors"][0]["reason"]
        assert english == refusal.facts


def test_no_reason_of_any_route_speaks_of_types_of_python() -> None:
    reasons = {refusal.facts["reason"] for route in ROUTES for refusal in refusals(route)}
    told = [reason for reason in reasons if not re.search("must (match|be one of) ", reason)]
    assert not [reason for reason in told if re.search(r"\b(str|int|float|bool|array|got|of length)\b", reason)]
    assert "Name must have at most 100 characters" in reasons


def own_rules() -> Iterator[str]:
    """The sentences that handlers and deciders write themselves, with 7 for what they fill in."""
    for path in SERVICES.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            first = call.args[0] if call.args else None
            if call.func.id == "refuse" and len(call.args) > 1:
                yield sentence(call.args[1])
            if call.func.id == "Refused" and isinstance(first, ast.Constant) and first.value == "VALIDATION_ERROR":
                with suppress(ValueError):
                    yield from (sentence(word.value) for word in call.keywords if word.arg == "reason")


def sentence(node: ast.expr) -> str:
    """Raises ValueError for what is not written where it is said."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in values)
        case _:
            raise ValueError(ast.dump(node))


@pytest.mark.parametrize("english", sorted({*own_rules(), NO_SUCH_CHANNEL, "Last used at must not be in the future"}))
def test_every_rule_that_is_written_out_has_its_portuguese(english: str) -> None:
    portuguese = reason_in("pt", english, "minutes")
    assert portuguese != english
    assert not ENGLISH.search(SAME.sub(r"\1", portuguese))


def test_portuguese_calls_a_field_as_it_was_sent_and_says_where() -> None:
    assert (
        reason_in("pt", "Max price must be a number <= 1000.0", "max_price") == "max_price deve ser um número <= 1000.0"
    )
    assert reason_in("pt", "Ports must be an integer, not a string - at $[0]", "ports") == (
        "ports deve ser um inteiro, não um texto (em $[0])"
    )
    assert reason_in("pt", "Size gb is required", "warm_pool.size_gb") == "size_gb é obrigatório"
    assert reason_in("en", "Size gb is required", "warm_pool.size_gb") == "Size gb is required"
