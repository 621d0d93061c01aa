"""The registry's own API: any request is answered well, and no change is missed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from driftloop.contracts.base import Event
from driftloop.contracts.events import CommentChanged, PipelineApplied, RolloutAdvanced
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.unit.registry import story
from tests.unit.scorer.packages import Factory
from tests.unit.support import FUZZ, examples, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.broker,
    pytest.mark.timeout(examples(600)),
]

AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
ANSWER_TIMEOUT_S = 120
SEED = 20110101
CASES = 8
"""Of each operation and each way to generate; ``make fuzz`` tries more."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
NAME = "bike-demand"
"""As the page of the API calls it."""
PAGE = Path(__file__).parents[2] / "docs" / "api.md"
KNOWN = {"pipeline": NAME, "version": "1", "alias": "champion"}
"""Path parameters that name what is there; every other case asks for anything."""


@dataclass
class Stage:
    """A broker, a registry that waits for nobody, and a model that waits for people."""

    log: Log
    factory: Factory
    registry: ServiceProcess

    def state(self, version: int) -> str:
        answer = self.registry.client.get(f"/api/v1/models/{NAME}/versions/{version}")
        return str(answer.json().get("state"))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("api")
    home = folder / "home"
    with KafkaNode(folder / "kafka") as node:
        create_topics(node.bootstrap)
        log = Log(node.bootstrap, home)
        registry = ServiceProcess(
            "registry", home, node.bootstrap, ANSWER_TIMEOUT_SECONDS=0.05
        )
        with registry:
            found = Stage(log, Factory(home), registry)
            spec = story.spec("approve", name=NAME)
            applied = PipelineApplied(pipeline=NAME, spec=spec, applied_by="ada")
            log.publish(
                with_id(applied, str(uuid.uuid4())),
                story.trained(found.factory, "one", pipeline=NAME),
            )
            wait_until(lambda: found.state(1) == "awaiting_approval", 120)
            yield found
        log.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_openapi_allows_or_not_is_answered(
    stage: Stage, mode: GenerationMode
) -> None:
    """No 5xx, no answer that the document does not name; errors are problem+json."""
    seed = uuid.uuid4().int if FUZZ else SEED
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    answers: Counter[int] = Counter()
    document = stage.registry.client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema = schema.include(path_regex="^/api/v1/").exclude(path="/api/v1/changes")
    for result in schema.get_all_operations():
        operation = result.ok()
        names = {p.name for p in operation.path_parameters}
        known = {name: value for name, value in KNOWN.items() if name in names}
        anything = operation.as_strategy(generation_mode=mode)
        what_is_there = operation.as_strategy(
            generation_mode=mode, path_parameters=known
        )

        @seeded(seed)
        @settings(
            max_examples=examples(CASES),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=st.one_of(what_is_there, anything))
        def answered(case: schemathesis.Case) -> None:
            response = case.call(
                base_url=stage.registry.url,
                headers=AUTHORIZATION,
                timeout=ANSWER_TIMEOUT_S,
            )
            answers[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)
            if response.status_code >= 400:
                kind = response.headers["content-type"][0]
                assert kind == "application/problem+json", case
                assert json.loads(response.content)["title"]

        answered()
    print(dict(answers))  # noqa: T201 - shown when it fails
    assert answers[200 if mode == GenerationMode.POSITIVE else 422]
    assert stage.registry.is_ready()


def blocks(response: httpx.Response) -> Iterator[dict[str, str]]:
    """Yield what each block of a stream of server-sent events says."""
    found: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        else:
            yield found
            found = {}


class Follower:
    """A client that goes on after the last id that it has seen, whatever happened."""

    def __init__(self, registry: ServiceProcess, **wanted: str) -> None:
        self._registry = registry
        self._wanted = wanted
        self._last: str | None = None
        self.heard: list[dict[str, Any]] = []

    def follow(self, count: int) -> None:
        """Connect, and hang up after so many changes more, or where it is cut."""
        headers = {"Last-Event-ID": self._last} if self._last is not None else {}
        goal = len(self.heard) + count
        with (
            suppress(httpx.RemoteProtocolError, httpx.ReadError),
            self._registry.client.stream(
                "GET", "/api/v1/changes", params=self._wanted, headers=headers
            ) as response,
        ):
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            for block in blocks(response):
                if "id" in block:
                    self._last = block["id"]
                if "data" in block:
                    self.heard.append(json.loads(block["data"]))
                if len(self.heard) >= goal:
                    return


def happen(stage: Stage, name: str, numbers: range) -> list[str]:
    """Let steps and comments happen in turn; return the ids of their events."""
    ids = []
    for n in numbers:
        event: Event
        if n % 2:
            event = RolloutAdvanced(
                pipeline=name, rollout_id="r", version=1, step=str(n),
                verdict="passed", detail="",
            )  # fmt: skip
        else:
            event = CommentChanged(
                pipeline=name, change="added", kind="pipeline", which=name,
                text=str(n), by="ann",
            )  # fmt: skip
        ids.append(f"{name}-{n}")
        stage.log.publish(with_id(event, ids[-1]))
    return ids


def test_a_stream_that_is_cut_goes_on_where_it_was(
    stage: Stage, unique_name: Callable[[str], str]
) -> None:
    """Hung up on, and its server killed: nothing is lost, nothing comes twice."""
    name, other = unique_name("told"), unique_name("told")
    wanted = happen(stage, name, range(6))
    happen(stage, other, range(4))
    follower = Follower(stage.registry, pipeline=name, after="start")
    follower.follow(2)
    follower.follow(1)
    wanted += happen(stage, name, range(6, 12))

    def kill() -> None:
        wait_until(lambda: len(follower.heard) >= 5, 120)
        stage.registry.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    follower.follow(1000)  # until the server is gone
    killer.join()
    wanted += happen(stage, name, range(12, 18))
    stage.registry.start()
    follower.follow(len(wanted) - len(follower.heard))

    heard = [change["event_id"] for change in follower.heard]
    assert sorted(heard) == sorted(wanted)  # each once; none of the other pipeline
    for kind in ("rollout-advanced", "comment-changed"):
        mine = [c["event_id"] for c in follower.heard if c["kind"] == kind]
        assert mine == [each for each in wanted if each in mine]


def test_by_default_a_stream_begins_now(
    stage: Stage, unique_name: Callable[[str], str]
) -> None:
    name = unique_name("told")
    happen(stage, name, range(4))
    follower = Follower(stage.registry, pipeline=name, kind="comment-changed")
    follower.follow(0)  # connects, learns the position, and hangs up
    wanted = happen(stage, name, range(4, 8))
    follower.follow(2)
    assert [change["event_id"] for change in follower.heard] == wanted[::2]


def test_streams_are_of_what_one_may_read(
    stage: Stage, unique_name: Callable[[str], str]
) -> None:
    """A member of another project hears of their own alone, and may not name it."""
    name, own = unique_name("told"), unique_name("told")
    for pipeline, project in ((name, "rides"), (own, "credit")):
        spec = story.spec(name=pipeline, project=project)
        applied = PipelineApplied(pipeline=pipeline, spec=spec, applied_by="ada")
        stage.log.publish(with_id(applied, f"applied-{pipeline}"))
    client = stage.registry.client
    body = {"name": "zoe", "roles": ["auditor@credit"]}
    token = client.post("/api/v1/tokens", json=body).json()["token"]
    mine = {"Authorization": f"Bearer {token}"}

    def named() -> set[str]:
        items = client.get("/api/v1/pipelines", headers=mine).json().get("items", [])
        return {item["name"] for item in items}

    wait_until(lambda: own in named(), 120)
    happen(stage, name, range(3))
    [wanted] = happen(stage, own, range(1))
    kinds = {"after": "start", "kind": "comment-changed"}
    with client.stream(
        "GET", "/api/v1/changes", params=kinds, headers=mine
    ) as response:
        first = next(block for block in blocks(response) if "data" in block)
    assert json.loads(first["data"])["event_id"] == wanted
    refused = client.get(f"/api/v1/changes?pipeline={name}", headers=mine)
    assert refused.status_code == 403


@pytest.mark.parametrize("query", ["?after=yesterday", "?kind=no-such-topic"])
def test_what_cannot_be_followed(stage: Stage, query: str) -> None:
    answer = stage.registry.client.get(f"/api/v1/changes{query}")
    assert answer.status_code == 422
    assert answer.json()["title"].split(":")[0] in {"Last-Event-ID", "kind"}


def routes_of(page: str) -> set[str]:
    """Return the routes in a page's tables."""
    return set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE))


def test_the_page_names_every_route(stage: Stage) -> None:
    """And none that there is not."""
    document = stage.registry.client.get("/openapi.json").json()
    served = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, operations in document["paths"].items()
        if path.startswith("/api/v1/")
        for method in operations
    }
    assert routes_of(PAGE.read_text("utf-8")) == served
    assert routes_of("| `GET /no-such` | read | |\n") == {"GET /no-such"}  # control


def test_the_page_can_be_followed(stage: Stage) -> None:
    """Its commands, as they stand, on a registry with its pipeline."""
    blocks_of = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks_of) == 2
    path = {"PATH": os.environ["PATH"]}
    known = {"REGISTRY": stage.registry.url, "TOKEN": TOKEN, **path}
    done = follow_page("\n".join(blocks_of), known)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("The **holiday** rows", "mae 40 against", "comment-changed"):
        assert said in done.stdout
    refused = follow_page(blocks_of[0], {**known, "TOKEN": "another"})
    assert refused.returncode != 0  # negative control


def follow_page(script: str, known: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=known, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
