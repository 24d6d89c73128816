"""Every file of the repository keeps the style guide's checkable rules."""

from __future__ import annotations

import pytest

from tests.tidy.rules import PYTHON_RULES, TEXT_RULES, Rule
from tests.tidy.tree import python, report, sources


@pytest.mark.parametrize("rule", PYTHON_RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Rule) -> None:
    violations = [sentence for source in python() for sentence in rule(source)]
    assert not violations, report(violations)


@pytest.mark.parametrize("rule", TEXT_RULES, ids=lambda rule: rule.__name__)
def test_every_text_keeps_the_rule(rule: Rule) -> None:
    violations = [sentence for source in sources() for sentence in rule(source)]
    assert not violations, report(violations)
