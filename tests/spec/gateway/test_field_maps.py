"""Small pure pieces of the gateway: GPU names, routing, OpenAPI, reading of bodies and queries."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from msgspec import Struct

from libs.refusal import Refused
from proto.instance.queries import InstanceView, MachineView
from proto.instance.words import Endpoint, MachineRole, MachineSpec, MachineStatus
from services.gateway.dialects.dumont.instance_object import instance
from services.gateway.dialects.gpu_names import gpu_name
from services.gateway.openapi_document import openapi_document
from services.gateway.routes import ROUTES
from services.gateway.routing import Router, route_of
from services.gateway.validation import read_body, read_query


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("RTX_4090", "RTX 4090"),
        ("rtx-4090", "RTX 4090"),
        ("RTX 4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("RTX 4090 24GB", "RTX 4090 24GB"),
        ("rtx_4090_24 gb", "RTX 4090 24GB"),
        ("A100 80GB", "A100 80GB"),
        ("", ""),
    ],
)
def test_gpu_names_have_one_spelling(given: str, name: str) -> None:
    assert gpu_name(given) == name
    assert gpu_name(name) == name


def test_fixed_segments_go_before_parameters() -> None:
    router = Router(ROUTES)
    assert route_of(router, "GET", "/api/v1/instances/offers")[0].path == "/api/v1/instances/offers"
    assert route_of(router, "GET", "/api/v1/instances/inst_1")[1] == ["inst_1"]
    assert route_of(router, "POST", "/api/instances/start")[0].path == "/api/instances/start"
    with pytest.raises(Refused):
        route_of(router, "POST", "/api/v1/instances/offers")


def test_the_openapi_document_is_whole_and_repeats_itself() -> None:
    document = openapi_document()
    text = json.dumps(document)
    assert text == json.dumps(openapi_document())
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= set(document["components"]["schemas"])
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)


NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def machine(role: MachineRole, status: MachineStatus, price: int) -> MachineView:
    endpoints = (Endpoint(22, "10.0.0.9", 40022, "tcp"),)
    name = f"sbx_{role}"
    return MachineView("mach_1", role, status, 1, "sandbox", name, "host_1", endpoints, price_usd_micros_per_hour=price)


@pytest.mark.parametrize(
    ("beside", "total", "standby"),
    [
        ((), 0.38, None),
        ((("cpu_standby", "healthy", 30_000),), 0.41, "healthy"),
        ((("cpu_standby", "requested", 30_000),), 0.38, "requested"),
        ((("cpu_standby", "destroyed", 30_000), ("standby", "healthy", 380_000)), 0.76, None),
        ((("standby", "stopped", 380_000), ("successor", "healthy", 500_000)), 0.38, None),
    ],
)
def test_an_instance_shows_what_stands_by_for_it_and_what_all_of_it_costs(
    beside: tuple[tuple[MachineRole, MachineStatus, int], ...], total: float, standby: str | None
) -> None:
    spec = MachineSpec("RTX 4090", "pytorch")
    machines = (machine("primary", "healthy", 380_000), *(machine(*one) for one in beside))
    view = InstanceView("inst_1", "acct_1", "one", "ready", "RTX 4090", spec, NOW, price_usd_micros_per_hour=380_000,
                        machines=machines)  # fmt: skip
    shown = instance(view)
    assert (shown.cost_per_hour, shown.total_dph) == (0.38, total)
    assert (shown.cpu_standby and (shown.cpu_standby.status, shown.cpu_standby.ip)) == (
        standby and (standby, "10.0.0.9")
    )
    assert instance(msgspec.structs.replace(view, price_usd_micros_per_hour=0)).total_dph is None


class Shape(Struct, frozen=True):
    name: str
    count: int = 1
    share: float = 0.5
    is_on: bool = False


def test_all_problems_of_a_body_are_told() -> None:
    with pytest.raises(Refused) as refused:
        read_body(b'{"count": "x", "share": []}', msgspec.json.Decoder(Shape), Shape)
    problems = {problem["field"]: problem["reason"] for problem in refused.value.facts["errors"]}
    assert problems == {
        "name": "Name is required",
        "count": "Count must be an integer, not a string",
        "share": "Share must be a number, not a list",
    }


def test_an_empty_body_is_told_what_it_lacks() -> None:
    with pytest.raises(Refused) as refused:
        read_body(b"", msgspec.json.Decoder(Shape), Shape)
    assert refused.value.facts["reason"] == "Name is required"


def test_queries_are_read_leniently_and_checked_strictly() -> None:
    assert read_query("name=a&count=3&is_on=true", Shape) == Shape("a", 3, 0.5, True)
    for bad in ("name=a&share=nan", "name=a&count=1.5", "name=a&is_on=maybe", "name=%00", "name=%ff", "count=1"):
        with pytest.raises(Refused):
            read_query(bad, Shape)
