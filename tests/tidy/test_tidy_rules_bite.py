"""Each tidy rule catches what it is for and lets its neighbour pass."""

from __future__ import annotations

import pytest

from tests.tidy import rules
from tests.tidy.tree import Source

LONG_BODY = "\n".join("    x = 1" for _ in range(rules.FUNCTION_LINES_MAX))
SWALLOWED = "try:\n  f()\nexcept Exception:\n  pass"
CASES = [
    (rules.module_is_short, "libs/a.py", "x = 1\n" * 401, "x = 1\n" * 400),
    (rules.functions_are_short, "libs/a.py", f"def f():\n{LONG_BODY}\n", f"def f():\n{LONG_BODY[10:]}\n"),
    (rules.module_says_what_it_is_for, "libs/a.py", "x = 1", '"""What it is for."""\nx = 1'),
    (rules.no_mocks, "tests/a.py", "from unittest import mock", "from unittest import TestCase"),
    (rules.no_mocks, "tests/a.py", "import unittest.mock", "import unittest"),
    (rules.clock_and_ids_come_from_libs, "libs/a.py", "t = datetime.now(UTC)", "t = clock.now()"),
    (rules.clock_and_ids_come_from_libs, "services/x/a.py", "i = uuid.uuid4()", "i = ids.fresh('x')"),
    (rules.randomness_is_handed_in, "libs/a.py", "random.random()", "random.Random(7)"),
    (rules.environment_is_read_by_config, "libs/a.py", "import os\nos.environ['A']", "import os\nos.getpid()"),
    (rules.only_the_command_line_prints, "libs/a.py", "print('a')", "log.info('a')"),
    (rules.tests_wait_on_conditions, "tests/a.py", "await asyncio.sleep(1)", "await asyncio.sleep(0.01)"),
    (rules.errors_are_not_swallowed, "libs/a.py", SWALLOWED, SWALLOWED.replace("Exception", "KeyError")),
    (rules.nothing_is_unfinished, "a.md", "TO" + "DO later", "to do later"),
    (rules.no_machine_paths, "a.md", "see /wo" + "rk/x", "see /workspace/x"),
    (rules.no_registry_hosts, "a.lock", "--index" + "-url x", "a==1"),
    (rules.no_word_about_the_making, "a.md", "Co-auth" + "ored-by: x", "Written by the maintainers"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "bad", "good"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_rule_catches_the_bad_and_passes_the_good(rule: rules.Rule, path: str, bad: str, good: str) -> None:
    assert list(rule(Source(path, bad)))
    assert not list(rule(Source(path, good)))


def test_a_generator_that_was_handed_in_may_be_called_random() -> None:
    handed_in = "def f(random):\n    return random.choice([1])"
    assert not list(rules.randomness_is_handed_in(Source("libs/a.py", handed_in)))


def test_a_vague_name_is_caught_in_any_part_of_the_path() -> None:
    assert list(rules.name_is_an_idea(Source("libs/utils.py", "")))
    assert list(rules.name_is_an_idea(Source("services/x/helpers/a.py", "")))
    assert not list(rules.name_is_an_idea(Source("libs/retry_schedule.py", "")))
