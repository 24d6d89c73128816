"""The style guide's checkable rules, each a pure function from one source file to sentences (docs/CONTRIBUTING.md).

`test_tidy_source.py` runs them over the tree; `test_tidy_rules_bite.py` shows that each one catches what it is for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator

from tests.tidy.tree import Source, dotted, functions

Rule = Callable[[Source], Iterable[str]]

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
README_LINES_MAX = 60
FIXED_SLEEP_S_MAX = 0.05

# Where the real clock, fresh ids and the environment may be touched.
CLOCK_FILES = ("libs/clock.py", "libs/ids.py", "libs/config.py")
# The SDK runs in customers' programs, which own their environment.
SDK_FILES = ("libs/sdk/",)
TIME_CALLS = {
    "datetime.now", "datetime.utcnow", "datetime.datetime.now", "datetime.datetime.utcnow", "date.today", "time.time",
    "time.time_ns", "uuid.uuid1", "uuid.uuid4", "uuid4", "uuid_utils.uuid4", "uuid_utils.uuid7", "uuid7",
}  # fmt: skip
SEEDED_RANDOM = {"random.Random"}
VAGUE_NAMES = {"manager", "managers", "helper", "helpers", "utils", "util", "common", "misc", "core", "shared"}
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b|NotImplemented" r"Error")


def module_is_short(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield f"{source.path}: {lines} lines of at most {MODULE_LINES_MAX}; which two ideas live in it? Split by noun."


def functions_are_short(source: Source) -> Iterator[str]:
    for function in functions(source.tree()):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield source.at(
                function,
                f"{function.name} has {lines} lines of at most {FUNCTION_LINES_MAX}; "
                "keep branches here, move straight lines into leaves.",
            )


def module_says_what_it_is_for(source: Source) -> Iterator[str]:
    if source.text.strip() and not ast.get_docstring(source.tree()):
        yield f"{source.path}: no module docstring; a file opens with what it is for, who calls it and what it owns."


def name_is_an_idea(source: Source) -> Iterator[str]:
    vague = VAGUE_NAMES & {part.removesuffix(".py") for part in source.parts}
    for name in sorted(vague):
        yield f"{source.path}: '{name}' says nothing; name the idea (retry_schedule.py, signing.py)."


def nothing_is_unfinished(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{source.path}:{number}: unfinished work; finish it, or write an issue and delete the line."


def no_mocks(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree()):
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if any(module == "mock" or module.startswith("unittest.mock") for module in modules):
            yield source.at(
                node, "mocks are not used; use a spec, the memory log, or a fake that passes the conformance suite."
            )


def clock_and_ids_come_from_libs(source: Source) -> Iterator[str]:
    if source.is_test or source.path.startswith(CLOCK_FILES):
        return
    for node in ast.walk(source.tree()):
        name = dotted(node.func) if isinstance(node, ast.Call) else ""
        if name in TIME_CALLS:
            yield source.at(
                node, f"{name}() reads the clock or makes an id; take libs.clock.Clock or libs.ids.Ids as an argument."
            )


def randomness_is_handed_in(source: Source) -> Iterator[str]:
    """`random.Random(seed)` is a value to hand in, the module's hidden generator is not; keys come from `secrets`."""
    if source.is_test or source.path.startswith(CLOCK_FILES):
        return
    own = {id(node) for function in functions(source.tree()) if _names_random(function) for node in ast.walk(function)}
    for node in ast.walk(source.tree()):
        name = dotted(node.func) if isinstance(node, ast.Call) else ""
        if name.startswith("random.") and name not in SEEDED_RANDOM and id(node) not in own:
            yield source.at(
                node, f"{name}() uses the hidden generator; hand in a random.Random(seed) or the choice itself."
            )


def _names_random(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether `random` is a generator of the function's own: a parameter, or assigned inside."""
    return any(
        (isinstance(node, ast.arg) and node.arg == "random")
        or (isinstance(node, ast.Name) and node.id == "random" and isinstance(node.ctx, ast.Store))
        for node in ast.walk(function)
    )


def environment_is_read_by_config(source: Source) -> Iterator[str]:
    if source.is_test or source.path.startswith(CLOCK_FILES + SDK_FILES):
        return
    for node in ast.walk(source.tree()):
        name = (
            dotted(node) if isinstance(node, ast.Attribute) else dotted(node.func) if isinstance(node, ast.Call) else ""
        )
        if name in {"os.environ", "os.getenv", "os.putenv"}:
            yield source.at(
                node, f"{name} is read by libs.config only; take the service's config struct as an argument."
            )


def only_the_command_line_prints(source: Source) -> Iterator[str]:
    if source.is_test or source.path.startswith(("services/cli/", "services/contracts/", "libs/sim/", "libs/sdk/")):
        return
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Call) and dotted(node.func) == "print":
            yield source.at(node, "print belongs to the command line; a service logs one fact per outcome.")


def tests_wait_on_conditions(source: Source) -> Iterator[str]:
    if not source.is_test:
        return
    for node in ast.walk(source.tree()):
        if not (
            isinstance(node, ast.Call) and dotted(node.func) in {"time.sleep", "asyncio.sleep", "sleep"} and node.args
        ):
            continue
        pause = node.args[0]
        if isinstance(pause, ast.Constant) and isinstance(pause.value, int | float) and pause.value > FIXED_SLEEP_S_MAX:
            yield source.at(node, f"a fixed sleep of {pause.value} s; wait on the condition, with a deadline.")


def errors_are_not_swallowed(source: Source) -> Iterator[str]:
    """`except Exception: pass` hides a bug: every failure is refused, transient or ours (docs/adr/0007)."""
    if source.is_test:
        return
    for node in ast.walk(source.tree()):
        if not isinstance(node, ast.ExceptHandler):
            continue
        catches_all = node.type is None or dotted(node.type) in {"Exception", "BaseException"}
        if catches_all and all(isinstance(line, ast.Pass | ast.Continue) for line in node.body):
            yield source.at(node, "an error is swallowed; decide whether it is refused, transient or a bug.")


PYTHON_RULES: tuple[Rule, ...] = (
    module_is_short,
    functions_are_short,
    module_says_what_it_is_for,
    name_is_an_idea,
    no_mocks,
    clock_and_ids_come_from_libs,
    randomness_is_handed_in,
    environment_is_read_by_config,
    only_the_command_line_prints,
    tests_wait_on_conditions,
    errors_are_not_swallowed,
)

# Built from halves, so that this file does not break its own rule.
MACHINE_PATHS = re.compile(r"(?<![\w.-])/(wo" r"rk|ro" r"ot)/(?!\.ssh\b)")
REGISTRY_HOSTS = re.compile(
    r"py" r"pi\.org|python" r"hosted\.org|registry\.npm" r"js|--(extra-)?index" r"-url", re.IGNORECASE
)
MAKING_OF = re.compile(
    r"\b(co-auth"
    r"ored-by|lang"
    r"uage model|ll"
    r"ms?|chat"
    r"gpt|cla"
    r"ude|anth"
    r"ropic|co"
    r"pilot|ai[- ](gener"
    r"ated|writ"
    r"ten|assis"
    r"tant))\b",
    re.IGNORECASE,
)


def no_machine_paths(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := MACHINE_PATHS.search(line):
            yield (
                f"{source.path}:{number}: '{found.group()}' is a path of one machine; "
                "derive it from the file's own place or take it as a setting."
            )


def no_registry_hosts(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := REGISTRY_HOSTS.search(line):
            yield (
                f"{source.path}:{number}: '{found.group()}' names a package index; "
                "which one to use is the installing machine's setting."
            )


def no_word_about_the_making(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := MAKING_OF.search(line):
            yield f"{source.path}:{number}: '{found.group()}' tells how the text was made; say what it is for instead."


TEXT_RULES: tuple[Rule, ...] = (nothing_is_unfinished, no_machine_paths, no_registry_hosts, no_word_about_the_making)
