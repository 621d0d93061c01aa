"""REST: alerts, who looks after them, and silences."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from driftloop.contracts.alerting import AlertsSection, Severity
from driftloop.contracts.alerts import (
    AlertAcknowledged,
    AlertsSilenced,
    Outcome,
    Reason,
)
from driftloop.contracts.base import UtcTime, origin_from
from driftloop.contracts.events import AlertRaised
from driftloop.registry.alerting import tables
from driftloop.registry.alerting.channels import NotSentError, Sender
from driftloop.registry.alerting.content import content_of, page_of, trace_of
from driftloop.registry.alerting.due import Notice, waits_for
from driftloop.registry.alerting.life import (
    Alert,
    Silence,
    State,
    alerts_of,
    silences_of,
)
from driftloop.registry.alerting.seeing import HORIZON, Rules, Sight
from driftloop.registry.alerting.tables import RegistryAlertFact
from driftloop.registry.requests import id_of
from driftloop.registry.resources.listing import (
    After,
    Id,
    Listed,
    OfPipeline,
    Place,
    cut,
    place_of,
    scope,
)
from driftloop.registry.rest import (
    ApiRouter,
    Context,
    Key,
    Limit,
    Name,
    later,
    no_pipeline,
)
from driftloop.registry.writes import LATER, SPOKEN_FOR, Text
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from fastapi import HTTPException, Query
from pydantic import BaseModel, Field
from sqlmodel import Session

MAX_SILENCE = timedelta(days=30)
"""A silence that is forgotten ends some day."""
OfState = Annotated[
    list[State] | None,
    Query(alias="state", description="default: all; may be given several times"),
]


class ShownNotice(BaseModel):
    """What became of one notice."""

    notice_id: str
    at: datetime
    reason: Reason
    channel: str
    outcome: Outcome
    attempts: int
    detail: str


class ShownAlert(BaseModel):
    """An alert as it is now, and whom it was told."""

    alert_id: str
    pipeline: str = Field(examples=["bike-demand"])
    condition: str = Field(examples=["sensor_fault:temp:2012-02-06T00:00"])
    severity: Severity
    state: State = Field(description="over: it is; or nothing can say, and a week is")
    title: str
    detail: str
    remedy: str = Field(description="what to do")
    owner: str | None
    at: datetime = Field(description="when it was raised first, by the clock")
    over_at: datetime | None
    over_why: str
    repeat_count: int = Field(description="how often it was raised again")
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    note: str
    waits_for: str | None = Field(
        description="why nobody is told now; null: nothing holds notices back"
    )
    channels: list[str] = Field(description="that it goes to at once")
    notices: list[ShownNotice] = Field(description="oldest first")
    console: str = Field(description="link; empty: no console is named")
    trace_id: str
    chain_id: str


class ShownSilence(BaseModel):
    """A silence, and whether notices wait for it now."""

    silence_id: str
    pipeline: str
    condition: str
    severities: list[Severity] = Field(description="empty: all")
    begun_at: datetime
    until: datetime
    by: str
    reason: str
    is_active: bool


class AcknowledgeBody(BaseModel):
    """A word on it; who says it, the credential says."""

    by: Text | None = Field(default=None, description=SPOKEN_FOR, examples=["ann"])
    note: str = Field(default="", max_length=500, examples=["I look at the sensor"])


class SilenceBody(BaseModel):
    """Which alerts of a pipeline wait, how long, and why."""

    condition: str = Field(
        default="*",
        min_length=1,
        max_length=500,
        description="of alerts; `*` stands for any text",
        examples=["sensor_fault:temp:*"],
    )
    severities: list[Severity] = Field(default=[], description="empty: all")
    until: UtcTime = Field(examples=["2026-11-28T06:00:00Z"])
    by: Text | None = Field(default=None, description=SPOKEN_FOR, examples=["ann"])
    reason: Text = Field(examples=["the sensor is exchanged tonight"])


class TestBody(BaseModel):
    """Which channel is to be tried."""

    __test__ = False  # no test of pytest's

    channel: str = Field(max_length=100, examples=["on-call"])


class TestResult(BaseModel):
    """Whether the receiver took an example."""

    __test__ = False

    pipeline: str
    channel: str
    kind: str = Field(examples=["slack"])
    outcome: Literal["delivered", "failed"]
    detail: str


@dataclass(frozen=True)
class Alerting:
    """What the routes about alerts work with beside the context."""

    sight: Sight
    sender: Sender
    console_url: str | None

    def rules(self, context: Context, pipeline: str) -> Rules:
        applied = context.pipelines.get(pipeline)
        if applied is None:
            return Rules("", AlertsSection())
        return self.sight.rules_of(applied.spec)


def alert_routes(context: Context, alerting: Alerting) -> GuardedRouter:
    """Return the routes about alerts."""
    router = ApiRouter(tags=["alerts"])
    _read_routes(router, context, alerting)
    _attend_routes(router, context, alerting)
    _silence_routes(router, context)
    _test_route(router, context, alerting)
    return router


# ── alerts ──────────────────────────────────────────────────────────────────


def _read_routes(router: GuardedRouter, context: Context, alerting: Alerting) -> None:
    @router.get("/alerts", dependencies=[needs("read")])
    def alerts(
        who: AskedBy,
        pipeline: OfPipeline = None,
        states: OfState = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[ShownAlert]:
        """List alerts of the last 90 days, newest first."""
        now, after = datetime.now(UTC), place_of(cursor)
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            by_pipeline = tables.facts(session, names, now - HORIZON)
        found: list[tuple[Place, ShownAlert]] = []
        for name, facts in by_pipeline.items():
            rules = alerting.rules(context, name)
            silences = silences_of(facts)
            for alert in alerts_of(facts, _calm(rules)):
                shown = _view(alert, rules, silences, now, alerting.console_url)
                if states is None or shown.state in states:
                    found.append((Place(alert.raised_at, alert.id), shown))
        return cut(found, limit, after, lambda one: one)

    @router.get("/alerts/{alert_id}", dependencies=[needs("read")])
    def alert(who: AskedBy, alert_id: Id) -> ShownAlert:
        """Show an alert, who looks after it, and whom it was told."""
        with context.session() as session:
            pipeline = _pipeline_of(session, alert_id)
            who.check("read", pipeline)
            return _shown(session, context, alerting, pipeline, alert_id)


def _attend_routes(router: GuardedRouter, context: Context, alerting: Alerting) -> None:
    @router.post(
        "/alerts/{alert_id}/acknowledge",
        response_model=ShownAlert,
        responses=LATER,
        dependencies=[needs("attend", personal=True)],
    )
    def acknowledge(
        who: AskedBy, alert_id: Id, body: AcknowledgeBody, key: Key = None
    ) -> Any:
        """Look after an alert: nobody else is called, and it is not repeated."""
        with context.session() as session:
            pipeline = _pipeline_of(session, alert_id)
            who.check("attend", pipeline)
            known = _known(session, context, alerting, pipeline, alert_id)
        event = AlertAcknowledged(
            pipeline=pipeline,
            alert_id=known.id,
            condition=known.condition,
            by=who.named(body.by),
            note=body.note,
        )
        event_id = id_of(event, key)
        with context.session() as session:
            is_repeat = tables.is_noted(session, event_id)
        if known.acknowledged is not None and not is_repeat:
            raise HTTPException(
                409, f"{known.acknowledged[0]} has acknowledged it already"
            )
        meta = context.publish(event, event_id, origin_from(known.origin))

        def applied() -> ShownAlert | None:
            with context.session() as session:
                if not tables.is_noted(session, meta.id):
                    return None
                return _shown(session, context, alerting, pipeline, known.id)

        return context.wait(applied) or later(meta, f"/api/v1/alerts/{known.id}")


def _calm(rules: Rules) -> timedelta:
    return timedelta(minutes=rules.alerts.calm_minutes)


def _pipeline_of(session: Session, alert_id: str) -> str:
    row = session.get(RegistryAlertFact, alert_id)
    if row is None or row.topic != AlertRaised.topic():
        raise HTTPException(
            404, f"no alert {alert_id!r}; GET /api/v1/alerts lists them"
        )
    return row.pipeline


def _known(
    session: Session,
    context: Context,
    alerting: Alerting,
    pipeline: str,
    alert_id: str,
) -> Alert:
    """Return an alert; one that was raised again has several ids."""
    facts = tables.facts(session, [pipeline])[pipeline]
    calm = _calm(alerting.rules(context, pipeline))
    return next(
        alert
        for alert in alerts_of(facts, calm)
        if alert_id == alert.id or alert_id in alert.repeats
    )


def _shown(
    session: Session,
    context: Context,
    alerting: Alerting,
    pipeline: str,
    alert_id: str,
) -> ShownAlert:
    known = _known(session, context, alerting, pipeline, alert_id)
    silences = silences_of(tables.facts(session, [pipeline])[pipeline])
    rules = alerting.rules(context, pipeline)
    return _view(known, rules, silences, datetime.now(UTC), alerting.console_url)


def _view(
    alert: Alert,
    rules: Rules,
    silences: list[Silence],
    now: datetime,
    console_url: str | None,
) -> ShownAlert:
    said = alert.acknowledged
    content = content_of(Notice(alert, "", "raised", 0, alert.raised_at), console_url)
    raised = alert.raised
    return ShownAlert(
        alert_id=alert.id,
        pipeline=alert.pipeline,
        condition=alert.condition,
        severity=alert.severity,
        state=alert.state(now, _calm(rules)),
        title=raised.title,
        detail=raised.detail,
        remedy=content.remedy,
        owner=raised.owner,
        at=alert.raised_at,
        over_at=alert.over_at,
        over_why=alert.over_why,
        repeat_count=len(alert.repeats),
        acknowledged_by=said[0] if said else None,
        acknowledged_at=said[1] if said else None,
        note=said[2] if said else "",
        waits_for=waits_for(alert, rules.alerts, silences, now),
        channels=list(rules.alerts.ways(alert.severity, alert.condition, raised.owner)),
        notices=[
            ShownNotice(
                **told.event.model_dump(include=set(ShownNotice.model_fields)),
                at=told.at,
            )
            for told in alert.told
        ],
        console=page_of(console_url, alert.pipeline),
        trace_id=trace_of(alert.origin.get("traceparent")),
        chain_id=alert.origin["chain_id"],
    )


# ── silences ────────────────────────────────────────────────────────────────


def _silence_routes(router: GuardedRouter, context: Context) -> None:
    @router.get("/silences", dependencies=[needs("read")])
    def silences(
        who: AskedBy,
        pipeline: OfPipeline = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[ShownSilence]:
        """List silences, newest first."""
        now = datetime.now(UTC)
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            by_pipeline = tables.facts(session, names, now - HORIZON)
        found = [
            (Place(each.begun_at, each.id), each)
            for facts in by_pipeline.values()
            for each in silences_of(facts)
        ]
        return cut(found, limit, place_of(cursor), lambda one: _silence(one, now))

    @router.post(
        "/pipelines/{pipeline}/silences",
        response_model=ShownSilence,
        responses=LATER,
        dependencies=[needs("attend", personal=True)],
    )
    def silence(
        pipeline: Name, body: SilenceBody, who: AskedBy, key: Key = None
    ) -> Any:
        """Let notices of some alerts wait until a time."""
        if pipeline not in context.pipelines:
            raise no_pipeline(pipeline)
        ahead = body.until - datetime.now(UTC)
        if not timedelta(0) < ahead <= MAX_SILENCE:
            raise HTTPException(
                422, f"until: a time to come, within {MAX_SILENCE.days} days"
            )
        event = AlertsSilenced(
            pipeline=pipeline,
            change="begun",
            condition=body.condition,
            severities=body.severities,
            until=body.until,
            by=who.named(body.by),
            reason=body.reason,
        )
        return _publish(context, event, key)

    @router.delete(
        "/pipelines/{pipeline}/silences/{silence_id}",
        response_model=ShownSilence,
        responses=LATER,
        dependencies=[needs("attend", personal=True)],
    )
    def unsilence(
        pipeline: Name,
        silence_id: Id,
        who: AskedBy,
        by: Annotated[Text | None, Query(description=SPOKEN_FOR)] = None,
        key: Key = None,
    ) -> Any:
        """End a silence: what waits and is not over is told now."""
        with context.session() as session:
            known = _of_id(session, pipeline, silence_id)
        event = AlertsSilenced(
            pipeline=pipeline,
            silence_id=known.id,
            change="ended",
            condition=known.condition,
            severities=list(known.severities),
            until=known.until,
            by=who.named(by),
            reason=known.reason,
        )
        return _publish(context, event, key)


def _publish(context: Context, event: AlertsSilenced, key: str | None) -> Any:
    meta = context.publish(event, id_of(event, key))
    silence_id = event.silence_id or meta.id

    def applied() -> ShownSilence | None:
        with context.session() as session:
            if not tables.is_noted(session, meta.id):
                return None
            known = _of_id(session, event.pipeline, silence_id)
        return _silence(known, datetime.now(UTC))

    return context.wait(applied) or later(meta, "/api/v1/silences")


def _of_id(session: Session, pipeline: str, silence_id: str) -> Silence:
    facts = tables.facts(session, [pipeline]).get(pipeline, [])
    for each in silences_of(facts):
        if each.id == silence_id:
            return each
    raise HTTPException(
        404, f"no silence {silence_id!r} of {pipeline}; GET /api/v1/silences lists them"
    )


def _silence(known: Silence, now: datetime) -> ShownSilence:
    return ShownSilence(
        silence_id=known.id,
        pipeline=known.pipeline,
        condition=known.condition,
        severities=list(known.severities),
        begun_at=known.begun_at,
        until=known.end,
        by=known.by,
        reason=known.reason,
        is_active=known.begun_at <= now < known.end,
    )


# ── trying a channel ────────────────────────────────────────────────────────


def _test_route(router: GuardedRouter, context: Context, alerting: Alerting) -> None:
    @router.post("/pipelines/{pipeline}/alerts/test", dependencies=[needs("operate")])
    def test(pipeline: Name, body: TestBody) -> TestResult:
        """Send an example by a channel, once; say what its receiver answered."""
        applied = context.pipelines.get(pipeline)
        if applied is None:
            raise no_pipeline(pipeline)
        rules = alerting.rules(context, pipeline)
        channel = rules.alerts.channels.get(body.channel)
        if channel is None:
            known = ", ".join(rules.alerts.channels) or "none"
            raise HTTPException(
                404, f"{pipeline} has no channel {body.channel!r}; there is {known}"
            )
        content = content_of(
            example(pipeline, applied.spec.owner, body.channel), alerting.console_url
        )
        detail = ""
        try:
            alerting.sender.send(channel, content, rules.project)
        except NotSentError as error:
            detail = str(error)
        return TestResult(
            pipeline=pipeline,
            channel=body.channel,
            kind=channel.kind,
            outcome="failed" if detail else "delivered",
            detail=detail,
        )


def example(pipeline: str, owner: str | None, channel: str) -> Notice:
    """Return a notice that says of itself that it is none."""
    now = datetime.now(UTC)
    raised = AlertRaised(
        pipeline=pipeline,
        condition="test",
        severity="info",
        title="This is a test: nothing is wrong",
        detail="Somebody has asked for it: driftloop alerts test.",
        owner=owner,
    )
    alert = Alert(id_of(raised, None), raised, now, now, {"chain_id": ""})
    return Notice(alert, channel, "raised", 0, now)
