"""Every code that the sources name is in the table, and every text can be told in both languages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.advice import PORTUGUESE, advice_in
from proto.codes import CODES, retry_and_advice, text
from services.gateway.routes import ROUTES

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
NAMED_BY_KEYWORD = {"code", "no_offer", "failure_code"}
FACTS = re.compile(r"\{(\w+)\}")


def sources() -> Iterator[Path]:
    for folder in ("libs", "services"):
        # The conformance suites of libs/spec refuse with codes of their own making.
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if "spec" not in path.parts)


def codes_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """First arguments of Refused and Refusal, and whatever is handed on under a name of NAMED_BY_KEYWORD."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        said = [node.args[0]] if name in ("Refused", "Refusal") and node.args else []
        said += [keyword.value for keyword in node.keywords if keyword.arg in NAMED_BY_KEYWORD]
        for value in said:
            for constant in ast.walk(value):
                if (
                    isinstance(constant, ast.Constant)
                    and isinstance(constant.value, str)
                    and CODE.fullmatch(constant.value)
                ):
                    yield node.lineno, constant.value


def test_no_source_names_a_code_that_is_not_in_the_table() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}:{line}: {code}"
        for path in sources()
        for line, code in codes_of(ast.parse(path.read_text()))
        if code not in CODES
    ]
    assert not unknown, unknown


def test_a_dialect_renames_only_codes_of_the_table() -> None:
    for route in ROUTES:
        assert set(route.renames) | set(route.dialect.renames) <= set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_two_texts_advice_and_an_error_status(code: str) -> None:
    known = CODES[code]
    assert 400 <= known.status < 600
    assert known.meaning.endswith(".")
    assert known.advice.endswith(".")
    assert advice_in("pt", known.advice).endswith(".")
    assert known.advice in PORTUGUESE, "say it in Portuguese too, in proto/advice.py"
    for language in ("en", "pt"):
        bare = text(code, {}, language)
        assert bare
        assert "{" not in bare
        assert "[" not in bare
        facts = dict.fromkeys(FACTS.findall(known.en + known.pt), "fact")
        assert ("fact" in text(code, facts, language)) == bool(facts)


def test_missing_facts_leave_out_their_part_of_the_text() -> None:
    assert text("INSTANCE_NOT_FOUND", {"instance_id": "inst_1"}) == "Instance not found: inst_1"
    assert text("INSTANCE_NOT_FOUND", {"instance_id": ""}) == "Instance not found"
    assert text("INSTANCE_NAME_AMBIGUOUS", {"name": "a", "instance_ids": ["i", "j"]}).endswith("named a: i, j")


def test_what_a_final_state_refuses_is_not_to_be_tried_again() -> None:
    own = {"status": "deleted", "advice": "create a new instance"}
    assert retry_and_advice("INSTANCE_NOT_STARTABLE", own) == (False, "create a new instance")
    retry, advice = retry_and_advice("INVALID_STATE", {"status": "revoked"})
    assert not retry
    assert advice in PORTUGUESE
    assert "wait" not in advice


def test_what_a_passing_state_refuses_may_succeed_later() -> None:
    assert retry_and_advice("INSTANCE_NOT_STARTABLE", {"status": "stopping"}) == (
        True,
        CODES["INSTANCE_NOT_STARTABLE"].advice,
    )
    assert retry_and_advice("VALIDATION_ERROR", {}) == (False, CODES["VALIDATION_ERROR"].advice)


def test_seed_000s_own_words() -> None:
    assert text("INSUFFICIENT_BALANCE", {}, "pt") == "Saldo insuficiente para esta operacao"
