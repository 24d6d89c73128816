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


def refusals() -> Iterator[tuple[str, ast.Call]]:
    """Of the services: what libs refuse is for them, not for a customer."""
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused" and node.args:
                yield str(path.relative_to(ROOT)), node


def test_a_refusal_gives_the_facts_that_its_text_can_tell() -> None:
    poor: list[str] = []
    for path, node in refusals():
        given = {keyword.arg for keyword in node.keywords}
        if isinstance(node.args[0], ast.Constant) and None not in given:  # None: handed on with **
            code = str(node.args[0].value)
            lacking = [fact for fact in FACTS.findall(CODES[code].en) if fact not in given]
            poor += [f"{path}:{node.lineno}: {code} {fact}" for fact in lacking]
    assert not poor, poor


def is_advice(node: ast.AST) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name.lower().startswith("advice")
        case ast.keyword(arg="advice"):
            return True
        case _:
            return False


def advices() -> Iterator[str]:
    """What deciders and handlers advise by themselves: under that name, or said by a function with it in its own."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            is_function = isinstance(node, ast.FunctionDef) and "_advice" in node.name
            if is_function or is_advice(node):
                texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
                yield from (text for text in texts if isinstance(text, str) and " " in text)


@pytest.mark.parametrize("advice", sorted(set(advices())))
def test_every_advice_that_is_written_out_has_its_portuguese(advice: str) -> None:
    assert advice in PORTUGUESE, "say it in proto/advice.py, without anything filled in: facts have places of their own"


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
