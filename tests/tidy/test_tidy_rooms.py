"""Every service has the same rooms, and the top level stays as it is (docs/architecture.md)."""

from __future__ import annotations

from importlib.metadata import packages_distributions

from tests.tidy.rules import README_LINES_MAX
from tests.tidy.tree import ROOT, paths, report, sources

# What stands at the top, and nothing else (docs/adr/0002). A dot-folder belongs to a tool that insists on its place.
TOP_LEVEL = {
    ".ci", ".gitignore", ".pre-commit-config.yaml", "LICENSE", "README.md", "deploy", "docker-compose.yml", "docs",
    "dumont", "justfile", "libs", "proto", "pyproject.toml", "requirements.lock", "services", "tests",
}  # fmt: skip
ROOMS = {"__init__", "__main__", "decider", "policy", "projection", "queries", "effects", "config", "rooms"}
ROOM_FILES = {"README.md", "schema.sql", "live.sql"}
# What a service needs beside the rooms, and only it.
MORE_ROOMS = {
    "instance": {"providers", "rooms"},
    "gateway": set(
        "routes routing pipeline wire call validation languages auth keys accounts limits usage dialects "
        "openapi_document gateway vitals server feed".split()
    ),
}
# Programs that keep no log of their own: the stand-in cloud, the program inside a machine, the command line, the
# process that starts all others, the contract generator. Their modules are named by noun; no vague names there either.
PROGRAMS = {"sandbox", "agent", "cli", "contracts", "supervisor"}
COMPOSITION_ROOT_LINES_MAX = 40
OWN_NAMES = {"services", "libs", "proto", "tests"}


def test_nothing_new_stands_at_the_top() -> None:
    strangers = sorted({path.split("/")[0] for path in paths()} - TOP_LEVEL)
    assert not strangers, f"{strangers}: the top level is fixed; put it under deploy/, docs/, libs/ or a service"


def test_a_service_has_only_the_known_rooms() -> None:
    violations = [
        f"{path}: not a room. A service has {sorted(ROOMS)}; a room over 400 lines becomes a package of that name."
        for path in paths()
        if path.startswith("services/") and not _is_room(path.split("/")[1:])
    ]
    assert not violations, report(violations)


def _is_room(inside: list[str]) -> bool:
    service, rest = inside[0], inside[1:]
    if not rest or service in PROGRAMS:
        return True
    room = rest[0].removesuffix(".py")
    return room in ROOMS | MORE_ROOMS.get(service, set()) or rest[0] in ROOM_FILES


def test_every_service_explains_itself_on_one_page() -> None:
    texts = {source.path: source.text for source in sources()}
    names = sorted({path.split("/")[1] for path in paths() if path.startswith("services/") and path.count("/") > 1})
    violations: list[str] = []
    for name in names:
        readme = texts.get(f"services/{name}/README.md")
        if readme is None:
            violations.append(
                f"services/{name}/README.md: missing; say purpose, words, invariants, what it hears and says."
            )
        elif readme.count("\n") > README_LINES_MAX:
            violations.append(
                f"services/{name}/README.md: more than {README_LINES_MAX} lines; one page, details into docs/."
            )
    assert not violations, report(violations)


def test_a_composition_root_only_composes() -> None:
    long = [
        f"{source.path}: {lines} lines of at most {COMPOSITION_ROOT_LINES_MAX}; what decides belongs in a room."
        for source in sources()
        if source.name == "__main__.py" and source.parts[0] == "services" and source.parts[1] not in PROGRAMS
        if (lines := source.text.count("\n")) > COMPOSITION_ROOT_LINES_MAX
    ]
    assert not long, report(long)


def test_no_installed_distribution_owns_our_top_level_names() -> None:
    """A dependency that ships `proto` would be imported instead of ours, or ours instead of its own (docs/adr/0002)."""
    taken = {name: owners for name, owners in packages_distributions().items() if name in OWN_NAMES}
    ours = {"dumont-cloud-platform"}
    strangers = {name: owners for name, owners in taken.items() if not set(owners) <= ours}
    assert not strangers, f"{strangers}: this distribution clashes with a top-level package of ours"


def test_the_lock_files_pin_every_package_by_digest_and_name_no_index() -> None:
    for name in ("requirements.lock", ".ci/requirements.lock"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        loose = [line for line in lines if line and not line.startswith(" ") and "==" not in line]
        assert not loose, f"{name}: {loose[:3]}: only `package==version` lines; make it with `just lock`"
        packages = [index for index, line in enumerate(lines) if line and not line.startswith(" ")]
        bare = [lines[index] for index in packages if "--hash=sha256:" not in "".join(lines[index + 1 : index + 2])]
        assert not bare, f"{name}: {bare[:3]}: no digest; make it with `just lock`"
