"""The API's lists over a short life of a pipeline, and what people write on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    AlertRaised,
    ApprovalGiven,
    DriftDetected,
    Evidence,
    ModelDeployed,
    PipelineApplied,
    RolloutAdvanced,
    TrainingSkipped,
    VerdictOverruled,
)
from driftloop.contracts.identity import AuditNoted, TokenChanged
from driftloop.registry import audit
from driftloop.registry.audit_api import audit_routes
from driftloop.registry.comments.rest import comment_routes
from driftloop.registry.handlers import Deps
from driftloop.registry.lineage.openlineage import Reporter
from driftloop.registry.reads import read_routes
from driftloop.registry.recorded import RecordedVerdicts
from driftloop.registry.resources.approvals import approval_routes
from driftloop.registry.resources.comparisons import comparison_routes
from driftloop.registry.resources.datasets import dataset_routes
from driftloop.registry.resources.decisions import decision_routes
from driftloop.registry.resources.deployments import deployment_routes
from driftloop.registry.resources.edges import edge_routes
from driftloop.registry.resources.runs import run_routes
from driftloop.registry.rest import ApiRouter, Context
from driftloop.registry.settings import RegistrySettings
from driftloop.registry.verdicts.rest import verdict_routes
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.http import http_app
from driftloop.runtime.identity import tokens
from driftloop.runtime.identity.guard import Guard
from driftloop.runtime.state import StateView
from sqlmodel import Session

from tests.unit.registry import bench, story
from tests.unit.registry.bench import Life, at, ref, trigger, versioned
from tests.unit.registry.story import NAME, START
from tests.unit.scorer.packages import Factory
from tests.unit.support import HttpClient

ROUTES = (
    read_routes,
    dataset_routes,
    run_routes,
    comparison_routes,
    approval_routes,
    deployment_routes,
    edge_routes,
    decision_routes,
    comment_routes,
    verdict_routes,
    audit_routes,
)
VERDICTS = f"/pipelines/{NAME}/verdicts"
COMMENTS = f"/pipelines/{NAME}/comments"


class Installation:
    """The routes over a database, with handlers that take what is published."""

    def __init__(self, folder: Path, factory: Factory) -> None:
        spec = story.spec("approve", 2)
        applied = PipelineApplied(pipeline=NAME, spec=spec, applied_by="ada")
        pipelines = StateView(PipelineApplied, {NAME: at(applied, "applied", 0)})
        pipelines.caught_up.set()
        recorded = RecordedVerdicts()
        recorded.complete.set()
        self.engine = open_database(f"sqlite:///{folder}/r.db", bench.SERVICE.tables)
        self.deps = Deps(
            Session(self.engine),
            pipelines,
            lambda _: bench.PackageFinding(cost=bench.Cost(0.5, 1.0, 3.0, 5.0)),
            recorded,
            FolderStore(Path("unused")),
            Reporter("here", "127.0.0.1:9092"),
            lambda _: False,
        )
        self.life = Life(self.deps, factory)
        self._known = StateView(TokenChanged)
        self._known.caught_up.set()
        settings = RegistrySettings(api_token="x" * 40, answer_timeout_seconds=0.2)  # type: ignore[arg-type]  # pydantic reads it
        self.settings = settings
        context = Context(
            self.engine,
            settings,
            self,  # type: ignore[arg-type]  # publishes to the handlers
            pipelines,
            lambda _ref, _name: None,
            lambda _topic, _partition, _offset: None,
        )
        guard = Guard(settings, self._known, pipelines)
        app = http_app("registry", settings, dict, guard)
        for routes in ROUTES:
            router = ApiRouter(prefix="/api/v1")
            router.include_router(routes(context))
            app.include_router(router)
        self._app = app

    def publish(self, event: Event, event_id: str, origin: Meta | None = None) -> Meta:
        """Take what a route publishes, once however often it is sent."""
        meta = Meta(event_id, datetime.now(UTC), "/api", Chain(event_id))
        if event_id not in [known.meta.id for known in self.life.log]:
            self.take(event.with_meta(meta))
        return meta

    def take(self, *events: Event) -> None:
        for event in events:
            self.life.take(event)
            self.deps.session.commit()

    def client(self, subject: str, *roles: str) -> Client:
        """Return a client with a token of its own."""
        new = tokens.mint()
        self._known.put(
            TokenChanged(
                token_id=new.token_id, name=subject, subject=subject,
                sha256=new.sha256, roles=list(roles), issued_by="ada",
                issued_at=datetime.now(UTC),
            )
        )  # fmt: skip
        header = {"Authorization": f"Bearer {new.token}"}
        return Client(HttpClient(self._app, header))

    def close(self) -> None:
        self.deps.session.close()
        self.engine.dispose()


class Client:
    """Calls the API; answers are what it said, or the error."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def ask(self, path: str, method: str = "GET", **fields: Any) -> httpx.Response:
        return self._http.request(method, f"/api/v1{path}", **fields)

    def get(self, path: str) -> Any:
        answer = self.ask(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, path: str, method: str = "GET", **fields: Any) -> tuple[int, str]:
        answer = self.ask(path, method, **fields)
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code, answer.json()["title"]

    def every(self, path: str, limit: int) -> list[Any]:
        """Return all pages of a list."""
        found: list[Any] = []
        more = f"{path}{'&' if '?' in path else '?'}limit={limit}"
        following = more
        while following:
            page = self.get(following)
            assert len(page["items"]) <= limit
            found += page["items"]
            cursor = page["next_cursor"]
            following = f"{more}&cursor={cursor}" if cursor else ""
        return found


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Live a short life: data, a model that people let in, drift, a failure."""
    folder = tmp_path_factory.mktemp("resources")
    factory = Factory(folder)
    found = Installation(folder, factory)
    first, drift = trigger(versioned(3).meta.id), trigger("drift-1", "drift-detected")
    one = bench.trained(factory, "one", first, ref(3), 3, requested_by="ann")
    two = bench.trained(factory, "two", drift, ref(5, 1), 7)
    common = {"pipeline": NAME, "version": 1, "rollout_id": "r1"}
    found.take(
        *(versioned(day) for day in (1, 2, 3)),
        bench.started("one", first, ref(3), 3),
        one,
        *(
            at(
                ApprovalGiven(
                    pipeline=NAME, version=1, decision="approve", by=by,
                    reason="good", package_digest=one.package.digest,
                ),
                f"approval-{by}", 4 + n / 10,
            )
            for n, by in enumerate(("ben", "cem"))
        ),
        *(
            at(
                RolloutAdvanced(step=step, verdict=verdict, detail="", **common),
                f"step-{n}", 5 + n / 10,
            )
            for n, (step, verdict) in enumerate(
                (("shadow", "started"), ("shadow", "passed"), ("full", "passed"))
            )
        ),
        at(ModelDeployed(package=one.package, generation=1, **common), "deployed", 5.5),
        at(
            DriftDetected(
                pipeline=NAME, model_version=1, cause="concept_drift",
                retrain_advised=True, since=START, detected_at=START,
                explanation="errors grew",
                evidence=[
                    Evidence(signal="e", detector="KS", statistic=1, row_count=9)
                ],
            ),
            "drift-1", 6,
        ),
        at(
            TrainingSkipped(
                pipeline=NAME, trigger=first, reason="cooldown", detail="2 days left"
            ),
            "skip-1", 6.5,
        ),
        two,
        bench.failed("three", drift, 8),
    )  # fmt: skip
    yield found
    found.close()


@pytest.fixture
def ann(installation: Installation) -> Client:
    return installation.client("ann", "data_scientist", "approver")


LISTS: dict[str, Callable[[Any], str]] = {
    "/datasets": lambda item: item["version"],
    "/runs": lambda item: item["job_id"],
    "/comparisons": lambda item: str(item["version"]),
    "/approvals": lambda item: str(item["version"]),
    "/deployments": lambda item: item["rollout_id"],
}
WANTED = {
    "/datasets": ["3.0", "2.0", "1.0"],
    "/runs": ["three", "two", "one"],
    "/comparisons": ["2", "1"],
    "/approvals": ["2", "1"],
    "/deployments": ["r1"],
}


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", [1, 2, 500])
def test_lists_are_newest_first_and_whole(ann: Client, path: str, limit: int) -> None:
    """Each item once, whatever the size of a page, with a pipeline named or not."""
    for query in ("", f"?pipeline={NAME}"):
        found = [LISTS[path](item) for item in ann.every(f"{path}{query}", limit)]
        assert found == WANTED[path]


def test_one_of_each(ann: Client) -> None:
    """What a list shows, a path of its own shows as well."""
    paths = {
        "/datasets": f"/datasets/{NAME}/3.0",
        "/runs": "/runs/three",
        "/comparisons": f"/models/{NAME}/versions/2/comparison",
        "/approvals": f"/approvals/{NAME}/2",
        "/deployments": f"/deployments/{NAME}/r1",
    }
    for path, one in paths.items():
        assert ann.get(one) == ann.get(path)["items"][0]


def test_a_run_says_what_came_of_it(ann: Client) -> None:
    three, two, one = ann.get("/runs")["items"]
    assert (one["state"], one["version"], one["dataset"]) == ("trained", 1, "3.0")
    assert one["trigger"]["reason"] == "first_model"
    assert one["ended_at"] == "2012-01-04T00:00:00Z"
    assert two["mlflow_run_id"] is None
    assert (three["state"], three["outcome"]) == ("failed", "out of memory")
    failed = ann.get("/runs?state=failed")["items"]
    assert [run["job_id"] for run in failed] == ["three"]


def test_a_comparison_says_by_how_much(ann: Client) -> None:
    found = ann.get(f"/models/{NAME}/versions/2/comparison")
    assert (found["candidate"], found["champion"]) == (40, 80)
    difference = found["difference"]
    assert difference["low"] < difference["mean"] == -40 < difference["high"] < 0
    assert found["candidate_trial"]["p50_ms"] == 0.5
    assert found["in_words"].startswith("mae 40 against champion v1 80")


def test_an_approval_says_who_may_decide(
    installation: Installation, ann: Client
) -> None:
    """The one that waits; for whom it is asked, the answer is their own."""
    two, one = ann.get("/approvals")["items"]
    assert [two["is_open"], one["is_open"]] == [True, False]
    assert (two["people"], two["needed"], one["needed"]) == (2, 2, 0)
    assert [each["by"] for each in one["decisions"]] == ["ben", "cem"]
    assert (two["you_may"], two["why_not"]) == (True, None)
    assert one["why_not"] == "version 1 waits for no decision: it is deployed"
    [open_one] = ann.get("/approvals?open=true")["items"]
    assert open_one["version"] == 2
    auditor = installation.client("eve", "auditor")
    asked = auditor.get(f"/approvals/{NAME}/2")
    assert not asked["you_may"]
    assert "it takes the role approver" in asked["why_not"]


def test_a_rollout_shows_its_steps(ann: Client) -> None:
    [found] = ann.get("/deployments?version=1")["items"]
    steps = [(step["step"], step["verdict"]) for step in found["steps"]]
    assert steps == [("shadow", "started"), ("shadow", "passed"), ("full", "passed")]
    assert (found["state"], found["changes"][0]["kind"]) == ("deployed", "deployed")
    assert ann.get("/deployments?version=2")["items"] == []


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_decisions_of_every_kind(ann: Client, limit: int) -> None:
    """Newest first over all kinds; one kind alone where it is asked for."""
    found = ann.every("/decisions", limit)
    assert [(each["kind"], each["outcome"]) for each in found] == [
        ("training", "failed"),
        ("training", "trained"),
        ("gate", "passed"),
        ("skip", "cooldown"),
        ("drift", "retrain"),
        ("serving", "deployed"),
        ("rollout", "passed"),
        ("rollout", "passed"),
        ("rollout", "started"),
        ("approval", "approve"),
        ("approval", "approve"),
        ("gate", "passed"),
        ("training", "trained"),
    ]
    some = ann.every("/decisions?kind=skip&kind=drift", limit)
    assert [each["reason"] for each in some] == [
        "2 days left",
        "concept_drift: errors grew",
    ]


def test_what_comes_in_meanwhile_shifts_no_page(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = Installation(tmp_path, Factory(tmp_path_factory.mktemp("home")))
    ann = found.client("ann", "auditor")
    found.take(*(versioned(day) for day in (1, 2, 3)))
    cursor = ann.get("/datasets?limit=1")["next_cursor"]
    found.take(versioned(40))
    rest = ann.get(f"/datasets?cursor={cursor}")["items"]
    assert [item["version"] for item in rest] == ["2.0", "1.0"]
    assert ann.get("/datasets")["items"][0]["version"] == "40.0"
    found.close()


@pytest.mark.parametrize("path", [*LISTS, "/decisions", "/pipelines", "/models"])
def test_an_answer_that_is_known_is_not_sent_again(ann: Client, path: str) -> None:
    tag = ann.ask(path).headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = ann.ask(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    other = ann.ask(path, headers={"If-None-Match": '"other"'})
    assert other.status_code == 200  # negative control


@pytest.mark.parametrize("path", [*LISTS, "/decisions"])
def test_only_what_one_may_read(installation: Installation, path: str) -> None:
    """Of another project a list holds nothing, and naming it is refused."""
    stranger = installation.client("zoe", "data_scientist@rides")
    assert stranger.get(path) == {"items": [], "next_cursor": None}
    status, title = stranger.refused(f"{path}?pipeline={NAME}")
    assert (status, "may not read" in title) == (403, True)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"/datasets/{NAME}/9.0", 404, "the newest is"),
        ("/runs/nine", 404, "GET /api/v1/runs lists them"),
        (f"/approvals/{NAME}/9", 404, "the newest is 2"),
        (f"/deployments/{NAME}/nine", 404, "has no rollout 'nine'"),
        ("/decisions?pipeline=nothing", 404, "GET /api/v1/pipelines lists"),
        ("/decisions?cursor=nonsense", 422, "next_cursor of the page before"),
        ("/runs?cursor=WzEsMl0", 422, "next_cursor of the page before"),
        (f"{COMMENTS}?about=model/9", 404, "has no version 9"),
        (f"{COMMENTS}?about=training", 422, "about: 'training' names nothing"),
    ],
)
def test_errors_name_the_remedy(
    ann: Client, path: str, status: int, words: str
) -> None:
    found, title = ann.refused(path)
    assert (found, words in title) == (status, True), title


ABOUT = ["pipeline", "model/2", "approval/1", "dataset/3.0", "training/three",
         "deployment/r1"]  # fmt: skip


@pytest.mark.parametrize("about", ABOUT)
def test_a_comment_on_anything(ann: Client, about: str) -> None:
    """Written, found by what it is about, edited, taken back; all of it is kept."""
    text = f"**what** of <b>{about}</b>?"
    sent = ann.ask(COMMENTS, "POST", json={"about": about, "text": text})
    assert sent.status_code == 200, sent.text
    made = sent.json()
    assert (made["by"], made["text"], made["is_deleted"]) == ("ann", text, False)
    path = f"{COMMENTS}/{made['comment_id']}"
    assert ann.get(f"{COMMENTS}?about={about}")["items"][0] == made
    assert made in ann.every(COMMENTS, 1)
    others = [one for one in ABOUT if one != about]
    for other in others:  # negative control
        assert made not in ann.get(f"{COMMENTS}?about={other}")["items"]

    ann.ask(path, "PUT", json={"text": "better"})
    gone = ann.ask(path, "DELETE").json()
    assert (gone["is_deleted"], gone["text"]) == (True, "")
    said = [(each["change"], each["text"]) for each in gone["history"]]
    assert said == [("added", text), ("edited", "better"), ("deleted", "")]
    assert ann.get(path) == gone
    status, title = ann.refused(path, "PUT", json={"text": "again"})
    assert (status, title) == (409, "the comment was taken back; write a new one")


def test_a_repeat_writes_no_second_comment(ann: Client) -> None:
    fields: dict[str, Any] = {
        "json": {"about": "model/1", "text": "once"},
        "headers": {"Idempotency-Key": "k"},
    }
    one, two = (ann.ask(COMMENTS, "POST", **fields).json() for _ in range(2))
    assert one == two
    assert len(ann.get(f"{COMMENTS}?about=model/1")["items"]) == 1


def test_whose_comment_it_is(installation: Installation, ann: Client) -> None:
    """Others may not change it; who governs the pipeline may take it back."""
    body = {"about": "pipeline", "text": "mine"}
    made = ann.ask(COMMENTS, "POST", json=body).json()
    path = f"{COMMENTS}/{made['comment_id']}"
    eve = installation.client("eve", "auditor")
    for method, fields in (("PUT", {"json": {"text": "x"}}), ("DELETE", {})):
        status, title = eve.refused(path, method, **fields)
        assert (status, title) == (403, "the comment is ann's, not eve's")
    zoe = installation.client("zoe", "data_scientist@rides")
    assert zoe.refused(path)[0] == 403
    assert zoe.refused(COMMENTS, "POST", json=body)[0] == 403
    named = {**body, "by": "ann"}
    assert eve.refused(COMMENTS, "POST", json=named)[0] == 403
    host = installation.client("ida", "ml_infra_engineer")
    assert host.refused(path, "PUT", json={"text": "x"})[0] == 403
    gone = host.ask(path, "DELETE").json()
    assert [each["by"] for each in gone["history"]] == ["ann", "ida"]


def noted(event_id: str, **more: Any) -> AuditNoted:
    fields = {
        "subject": "ann", "credential": "token:1", "service": "registry",
        "action": "approve", "about": NAME, "method": "POST", "path": "/x",
        "outcome": "asked", **more,
    }  # fmt: skip
    event: AuditNoted = at(AuditNoted.model_validate(fields), event_id, 1)
    return event


def test_the_audit_trail_is_searched(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who, what for, about what, how it went and when; a few entries at a time."""
    installation.take(
        noted("note-1"),
        noted("note-2", subject="ben", outcome="refused"),
        noted("note-3", action="train", about="other"),
        at(noted("note-4"), "note-4", 3),
    )
    eve = installation.client("eve", "auditor")

    def found(query: str) -> list[str]:
        return [each["content"]["event_id"] for each in eve.every(query, 2)]

    wanted = {
        "/audit": ["note-1", "note-2", "note-3", "note-4"],
        "/audit?subject=ben": ["note-2"],
        "/audit?action=train": ["note-3"],
        f"/audit?pipeline={NAME}&subject=ann": ["note-1", "note-4"],
        "/audit?outcome=refused": ["note-2"],
        "/audit?since=2012-01-03T00:00:00Z": ["note-4"],
        "/audit?until=2012-01-03T00:00:00Z": ["note-1", "note-2", "note-3"],
        "/audit?subject=nobody": [],
    }
    for most in (audit.MAX_LOOKED_AT, 1):
        monkeypatch.setattr(audit, "MAX_LOOKED_AT", most)
        assert {query: found(query) for query in wanted} == wanted
    assert eve.refused("/audit?since=yesterday")[0] == 422
    scientist = installation.client("ann", "data_scientist")
    assert scientist.refused("/audit")[0] == 403


# ── verdicts ────────────────────────────────────────────────────────────────


def test_a_person_overrules_a_verdict_and_the_report_learns_of_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = Installation(tmp_path, Factory(tmp_path_factory.mktemp("home")))
    ann = found.client("ann", "data_scientist")
    for number, cause in enumerate(("concept_drift", "sensor_fault")):
        verdict = DriftDetected.model_validate(
            {
                "pipeline": NAME, "model_version": 1, "cause": cause,
                "retrain_advised": cause == "concept_drift", "since": START,
                "detected_at": START, "explanation": "errors grew",
                "confidence": 0.8, "alternatives": {"label_fault": 0.2},
                "features": ["temp"], "shares": {"temp": 1.0},
                "sources": {"north": 1.0},
                "evidence": [{"signal": "error", "detector": "KS", "statistic": 1,
                              "row_count": 9}],
            }
        )  # fmt: skip
        found.take(at(verdict, f"verdict-{number}", 6 + number))
    report = ann.get(VERDICTS)
    newest, oldest = report["verdicts"]
    assert (newest["cause"], oldest["cause"]) == ("sensor_fault", "concept_drift")
    assert oldest["features"] == {"temp": 1.0}
    assert oldest["sources"] == {"north": 1.0}
    assert report["prior"] == {}  # negative control: nobody has said anything

    path = f"{VERDICTS}/verdict-0/overrule"
    said = ann.ask(
        path, "POST", json={"cause": "label_fault", "reason": "the tool was updated"}
    )
    assert said.status_code == 200, said.text
    assert said.json()["holds"] == "label_fault"
    [one] = said.json()["overrulings"]
    assert (one["by"], one["cause"]) == ("ann", "label_fault")
    report = ann.get(VERDICTS)
    held = {each["cause"]: each for each in report["causes"]}
    assert held["concept_drift"]["precision"] == 0
    assert held["sensor_fault"]["precision"] == 1
    assert (held["label_fault"]["told"], held["label_fault"]["missed"]) == (0, 1)
    assert report["prior"]["concept_drift"] < 1 < report["prior"]["label_fault"]

    status, title = ann.refused(
        path, "POST", json={"cause": "label_fault", "reason": "again"}
    )
    assert (status, "holds already" in title) == (409, True)
    confirmed = ann.ask(
        f"{VERDICTS}/verdict-1/overrule",
        "POST",
        json={"cause": "sensor_fault", "reason": "the gauge is broken"},
    )
    assert confirmed.status_code == 200, "it was inferred only"
    status, title = ann.refused(
        f"{VERDICTS}/verdict-1/overrule",
        "POST",
        json={"cause": "sensor_fault", "reason": "again"},
    )
    assert (status, "holds already" in title) == (409, True)
    status, title = ann.refused(
        f"{VERDICTS}/nine/overrule",
        "POST",
        json={"cause": "seasonality", "reason": "x"},
    )
    assert (status, "lists them" in title) == (404, True)
    mended = {"cause": "sensor_fault", "reason": "sent again", "mended": True}
    said = ann.ask(f"{VERDICTS}/verdict-1/overrule", "POST", json=mended)
    assert said.status_code == 200, said.text
    assert ann.get(VERDICTS)["prior"] == report["prior"]  # it counts against nobody
    status, title = ann.refused(path, "POST", json=mended | {"cause": "concept_drift"})
    assert (status, "is no fault" in title) == (422, True)
    auditor = found.client("eve", "auditor")
    status, _ = auditor.refused(
        path, "POST", json={"cause": "seasonality", "reason": "x"}
    )
    assert status == 403
    found.close()


def test_a_model_of_an_overruled_verdict_is_told_of(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    factory = Factory(tmp_path_factory.mktemp("home"))
    found = Installation(tmp_path, factory)
    drift = trigger("verdict-0", "drift-detected")
    found.take(versioned(3), bench.trained(factory, "one", drift, ref(3), 3))
    told: list[Event] = []
    for verdict, cause in (("verdict-0", "sensor_fault"), ("other", "sensor_fault"),
                           ("verdict-0", "population_shift")):  # fmt: skip
        overruled = VerdictOverruled(
            pipeline=NAME, verdict_id=verdict, verdict_cause="concept_drift",
            cause=cause, overruled_by="ann", reason="I saw it", since=START,
            detected_at=START, model_version=1,
        )  # fmt: skip
        told += found.life.take(at(overruled, f"o-{verdict}-{cause}", 7))
    (alert,) = told
    assert isinstance(alert, AlertRaised)
    assert alert.title == "v1 was trained because of a verdict that did not hold"
    found.close()
