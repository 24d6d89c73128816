"""The whole surface of survival over HTTP, row by row: each documented request, its shape and its refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from libs.tokens import mint_agent_token
from tests.journey import survival_rows as rows
from tests.journey.platform import Answer, Platform, platform
from tests.journey.survival_rows import Row
from tests.journey.test_failover import call, until

Things = dict[str, str]


@pytest.fixture(scope="module")
def up(module_data_dir: Path) -> Any:
    """A platform of its own: nobody else may take the GPU that a stopped standby counts on."""
    around = {"DUMONT_SANDBOX_OPTIONS": '{"boot_delay_ms": {"min": 0, "max": 50}, "outside_demand_ppm": 0}'}
    with platform(module_data_dir, environment=around) as running:
        yield running


def misfits(shape: Any, value: Any, where: str = "data") -> list[str]:
    """What the contract documents and the value lacks, or has in another type."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where} is {value!r}, not an object"]
        absent = [f"{where}.{name} is missing" for name in shape if name not in value]
        return absent + [
            one for name in shape if name in value for one in misfits(shape[name], value[name], f"{where}.{name}")
        ]
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return [f"{where} is {value!r}, not a list with something in it"]
        return [one for item in value for one in misfits(shape[0], item, f"{where}[]")]
    is_bool_for_number = isinstance(value, bool) and shape in (int, rows.NUMBER)
    return [] if isinstance(value, shape) and not is_bool_for_number else [f"{where} is {value!r}, not {shape}"]


def filled(value: Any, things: Things) -> Any:
    """With things for their names, in texts, keys and all that is inside."""
    match value:
        case str():
            for name in sorted(things, key=len, reverse=True):
                value = value.replace(name, things[name])
            return value
        case dict():
            return {filled(key, things): filled(one, things) for key, one in value.items()}
        case tuple() | list():
            return type(value)(filled(one, things) for one in value)
        case _:
            return value


def complaints(up: Platform, row: Row, things: Things) -> list[str]:
    """What is wrong with the answer to a row."""
    credential = things["$agent_token"] if row.key == "agent" else True
    answer = up.request(row.method, f"/api/v1{filled(row.path, things)}", filled(row.body, things), key=credential)
    said = f"{row.method} {row.path} {row.body}: {answer.status} {answer.text[:300]}"
    if answer.status != row.status:
        return [f"{said}; not {row.status}"]
    if isinstance(row.shows, str):
        return [f"{said}; {one}" for one in _refusal_misfits(answer, row)]
    data = answer.json["data"]
    wrong = misfits(filled(row.shows, things), data) if answer.json["success"] is True else ["success is not true"]
    for path, expected in filled(row.holds, things):
        value = data
        for name in path.split("."):
            value = (
                value[int(name)] if isinstance(value, list) else value.get(name) if isinstance(value, dict) else None
            )
        wrong += [] if value == expected else [f"{path} is {value!r}, not {expected!r}"]
    return [f"{said}; {one}" for one in wrong]


def _refusal_misfits(answer: Answer, row: Row) -> list[str]:
    shape = {"success": bool, "error": {"code": str, "message": str, "details": dict, "request_id": str}}
    wrong = misfits(shape, answer.json, "body")
    if not wrong and answer.json["error"]["code"] != row.shows:
        wrong.append(f"the code is not {row.shows}")
    if row.status == 429 and int(answer.headers.get("retry-after", "0")) <= 0:
        wrong.append("429 without Retry-After")
    return wrong


def walk(up: Platform, chapter: Sequence[Row], things: Things) -> None:
    """Every row, and all complaints at once."""
    found = [one for row in chapter for one in complaints(up, row, things)]
    assert not found, "\n".join(found)


def made(up: Platform, **more: Any) -> str:
    return call(up, "POST", "/instances", {"gpu": "RTX 4090"} | more)["id"]


def things_for_rows(up: Platform) -> Things:
    """`$ready` was created with its protection; `$other` has none; `$stopped` is stopped."""
    ready = made(up, failover_strategy="warm_pool")
    until(up, f"/failover/readiness/{ready}", lambda one: one["overall_ready"], "the protection asked for at create")
    other, stopped = made(up, gpu="RTX 3090"), made(up, gpu="RTX 3090", failover_enabled=False)  # on other hosts
    seen = {name: until(up, f"/instances/{name}", lambda one: one["status"] == "running", "a running instance")
            for name in (ready, other, stopped)}  # fmt: skip
    call(up, "POST", f"/instances/{stopped}/stop")
    until(up, f"/instances/{stopped}", lambda one: one["status"] == "stopped", "a stopped instance")
    label = next(m["label"] for m in up.machines() if m["machine_id"] == seen[ready]["provider_instance_id"])
    secret = (up.data_dir / "secrets" / "platform").read_text().strip()
    machine_id = label.rpartition(".")[2]
    token = mint_agent_token(secret, machine_id=machine_id, instance_id=ready, generation=seen[ready]["generation"])
    return {
        "$ready": ready,
        "$other": other,
        "$stopped": stopped,
        "$host": seen[ready]["host_id"],
        "$agent_token": token,
    }


def test_every_documented_request_has_its_documented_answers(up: Platform) -> None:
    things = things_for_rows(up)
    ready = things["$ready"]
    for chapter in (rows.SETTINGS_ROWS, rows.FAILOVER_ROWS, rows.POOL_ROWS, rows.STANDBY_ROWS, rows.AGENT_ROWS):
        walk(up, chapter, things)
    up.cloud("POST", "/v1/faults", {"boots_slow": 9, "boot_slow_ms": 4_000})  # the standby takes its time to come up
    walk(up, rows.RUN_ROWS, things)
    up.cloud("POST", "/v1/faults", {"boots_slow": 0})
    run = until(up, f"/failovers?machine_id={ready}", lambda found: found[0]["success"] is not None, "its end")[0]
    assert run["success"], run
    until(up, f"/failover/settings/machines/{ready}", lambda one: one["stats"]["last_failover_strategy"], "its stats")
    walk(up, rows.LIMIT_ROWS, things)
    for name in ("$ready", "$other", "$stopped"):
        call(up, "DELETE", f"/instances/{things[name]}")


def test_a_failover_that_is_only_tried_is_a_real_one_when_asked_for(up: Platform) -> None:
    instance_id = made(up, failover_strategy="both", skip_standby=True)
    until(up, f"/failover/readiness/{instance_id}", lambda one: one["overall_ready"], "its pool")
    told = call(up, "POST", f"/failover/test/{instance_id}?dry_run=false")
    assert not misfits(rows.TEST_RUN, told), told
    assert (told["dry_run"], told["success"], told["strategy_succeeded"]) == (False, True, "warm_pool")
    assert call(up, "GET", "/standby/associations")["associations"].get(instance_id) is None, "skip_standby"
    call(up, "DELETE", f"/instances/{instance_id}")


def test_what_contradicts_itself_at_create_is_refused(up: Platform) -> None:
    for body in (
        {"failover_strategy": "hope"},
        {"failover_strategy": "both", "failover_enabled": False},
        {"failover_strategy": "disabled", "failover_enabled": True},
    ):
        answer = up.request("POST", "/api/v1/instances", {"gpu": "RTX 4090"} | body, key=True)
        assert (answer.status, answer.json["error"]["code"]) == (400, "VALIDATION_ERROR"), answer.text
