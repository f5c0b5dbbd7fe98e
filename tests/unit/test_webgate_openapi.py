"""The description of the API is true: it names every route, and what comes back is what it says."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any, cast

import pytest

from orchestrator import config
from orchestrator.store import tickets
from tests.unit.gateway import Gateway
from webgate import app
from webgate.base import Shared

schemathesis = pytest.importorskip("schemathesis")

NOT_DESCRIBED = {
    "/",
    "/ticket/{ticket}",
    "/report",
    "/login",
    "/login.css",
    "/favicon.ico",
    "/static/{version}/{name}",
}
#: They never end, or end the session that asks, or start a process each.
NOT_FUZZED = r"/stream$|/logout$|/close$|/reopen$"
#: They ask systemd; without pystemd there is nothing to ask it with.
UNITS = "" if find_spec("pystemd") else r"|/(unit|start|stop|restart)$"


def routes() -> set[tuple[str, str]]:
    """What the application answers, as OpenAPI would write it."""
    nothing = cast("Any", None)
    made = app.build(Shared(config.Config(), nothing, nothing, nothing, nothing, nothing))
    return {(r.method.lower(), re.sub(r"<(\w+)(:\w+)?>", r"{\1}", r.rule)) for r in made.routes}


def test_every_route_is_described(shared_gateway: Gateway) -> None:
    """Pages and files aside; and nothing is described that is not there."""
    described = shared_gateway.get("/api/openapi.json").json()
    named = {(method, path) for path, each in described["paths"].items() for method in each}
    assert named == {(method, path) for method, path in routes() if path not in NOT_DESCRIBED}
    assert all(o["summary"] for each in described["paths"].values() for o in each.values())


def test_every_schema_is_used(shared_gateway: Gateway) -> None:
    """A schema nobody names is a leftover; a name nobody defined is a mistake."""
    described = shared_gateway.get("/api/openapi.json")
    named = set(re.findall(r"#/components/schemas/(\w+)", described.body.decode()))
    assert named == set(described.json()["components"]["schemas"])


def test_what_comes_back_is_what_is_described(shared_gateway: Gateway) -> None:
    """Requests made up from the description: no 5xx but where systemd is missing, and true answers."""
    from hypothesis import HealthCheck, Phase, settings  # noqa: PLC0415  # with schemathesis alone
    from schemathesis.specs.openapi import checks as openapi_checks  # noqa: PLC0415

    ticket = tickets.create(shared_gateway.database, title="to be asked about").id
    described = shared_gateway.get("/api/openapi.json").json()
    schema = schemathesis.openapi.from_dict(described)
    schema.config.update(base_url=f"http://{shared_gateway.host}")
    told = {"Authorization": f"Bearer {shared_gateway.token}"}
    wanted = [
        openapi_checks.response_schema_conformance, openapi_checks.status_code_conformance,
        openapi_checks.content_type_conformance,
    ]  # fmt: skip
    asked = 0
    for operation in schema.exclude(path_regex=NOT_FUZZED + UNITS).get_all_operations():
        operation = operation.ok()  # noqa: PLW2901

        @settings(
            max_examples=15, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def ask(case: Any) -> None:
            nonlocal asked
            if "ticket" in case.path_parameters and asked % 3:
                case.path_parameters["ticket"] = ticket
            answer = case.call(headers=told, timeout=20)
            case.validate_response(answer, checks=wanted)
            assert answer.status_code < 500 or answer.json()["problem"] == "unavailable", (
                answer.text
            )
            asked += 1

        hypothesis_test(operation, ask)
    assert asked > 200
    assert "Traceback" not in shared_gateway.said()
    assert "<3>" not in shared_gateway.said()


def hypothesis_test(operation: Any, ask: Any) -> None:
    """Runs `ask` with cases of one operation."""
    from hypothesis import given  # noqa: PLC0415

    given(case=operation.as_strategy())(ask)()
