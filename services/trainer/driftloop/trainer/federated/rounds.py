"""The life of a federation: opened by a person, closed round by round, then a job.

An update's time is the one that its event carries; by that time it is late or not. A
round closes when enough sites have sent, in the handler; a round that nobody completes
closes after its deadline by the wall clock (:mod:`driftloop.trainer.federated.clock`).
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from driftloop.contracts.base import Event, chain_of, derived_id
from driftloop.contracts.events import (
    FederatedRoundClosed,
    FederatedRoundOpened,
    FederatedUpdateSubmitted,
    FederationRequested,
)
from driftloop.contracts.federated import (
    MAX_SITES,
    NotFederatedError,
    RefusedUpdate,
    SiteShare,
    encoding_of,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.errors import Reject, Skip
from driftloop.runtime.recorded import Recorded
from driftloop.trainer.federated import core, result
from driftloop.trainer.federated.tables import (
    Federation,
    FederationUpdate,
    kept_count,
    updates_of,
    waiting_federations,
)
from driftloop.trainer.tables import Origin, TrainerJob
from driftloop.trainer.told import has_begun
from sqlalchemy.event import listen
from sqlmodel import Session

MAX_KEPT = 2 * MAX_SITES
"""Updates kept of one federation; a site that goes on sending is refused."""
MAX_EARLY = 20_000
"""Updates kept in all while one comes whose federation is not known (yet)."""
MAX_TOLD = 100


@dataclass(frozen=True)
class Rounds:
    """What opens and closes rounds inside one transaction.

    Attributes
    ----------
    wake : set once a job is committed, for the loop that trains.
    recorded : what the trainer has said before it started.
    """

    session: Session
    wake: threading.Event
    recorded: Recorded = field(default_factory=Recorded)

    def request(
        self, event: FederationRequested, spec: PipelineSpec
    ) -> Iterator[Event]:
        """Open the first round, or say why not."""
        federation_id = derived_id(event.meta.id, "federation", 0)
        low, high = event.target_min, event.target_max
        ends = None if low is None or high is None else (low, high)
        try:
            encoding = encoding_of(spec, ends)
        except NotFederatedError as error:
            yield FederatedRoundClosed(
                pipeline=spec.name,
                federation_id=federation_id,
                round=0,
                outcome="failed",
                detail=str(error),
                is_last=True,
            )
            return
        opened_at = event.meta.time
        until = opened_at + timedelta(minutes=event.rules.round_minutes)
        row = Federation(
            id=federation_id,
            pipeline=spec.name,
            requested_by=event.requested_by,
            request_id=event.meta.id,
            origin=Origin.model_validate(chain_of(event.meta)).model_dump_json(),
            rules=event.rules.model_dump_json(),
            encoding=encoding.model_dump_json(),
            weights=json.dumps([0.0] * encoding.weight_count),
            opened_at=opened_at.isoformat(),
            deadline=until.isoformat(),
        )
        self.session.add(row)
        self.session.flush()
        yield self._opened(row, spec)
        yield from self._advance(row, spec)  # in a replay of the log

    def submit(
        self, event: FederatedUpdateSubmitted, spec: PipelineSpec
    ) -> Iterator[Event]:
        """Take a site's update; close the round if it was the last one wanted.

        Raises
        ------
        Reject
            When there is no such round, or too many updates are kept.
        Skip
            When the round is closed.
        """
        row = self.session.get(Federation, event.federation_id, with_for_update=True)
        if row is not None and row.pipeline != event.pipeline:
            raise Reject(f"is of pipeline {row.pipeline}", field="federation_id")
        if row is not None and (row.state != "open" or event.round < row.number):
            raise Skip("federated_round_closed")
        if row is not None and event.round > row.how().rounds:
            raise Reject(f"there are {row.how().rounds} rounds", field="round")
        self._check_room(None if row is None else row.id)
        kept = FederationUpdate.of(event)
        self.session.add(kept)
        self.session.flush()
        if row is not None and event.round == row.number:
            yield from self._advance(row, spec)
        # else the log is replayed, and the topic of requests comes later

    def _check_room(self, federation_id: str | None) -> None:
        """Refuse to keep more than sites have to send.

        Parameters
        ----------
        federation_id : None: one that is not known yet.
        """
        most = MAX_EARLY if federation_id is None else MAX_KEPT
        if kept_count(self.session, federation_id) >= most:
            raise Reject(
                f"{most} updates are kept already; a site sends one a round",
                field="federation_id",
            )

    def _judge(self, row: Federation) -> list[core.Update]:
        """Return the updates that count; note why the others do not."""
        now, sites, counting = row.now(), set[str](), []
        for kept in updates_of(self.session, row.id, row.number):
            if kept.reason is not None:
                continue
            update = kept.value()
            why = core.refusal(update, now, sites)
            if why is None:
                sites.add(update.site)
                counting.append(update)
            else:
                kept.reason, kept.detail = why
                kept.numbers = "[]"
        return counting

    def _opened(self, row: Federation, spec: PipelineSpec) -> Event:
        now = row.now()
        opened = FederatedRoundOpened(
            pipeline=row.pipeline,
            federation_id=row.id,
            round=now.number,
            rules=row.how(),
            encoding=row.encoded(),
            weights=list(now.weights),
            deadline=now.deadline,
            seed=spec.train.seed,
        )
        return opened.following(row.meta())

    def _advance(self, row: Federation, spec: PipelineSpec) -> Iterator[Event]:
        """Close the open round if it is complete; in a replay others may follow."""
        wanted = row.how().site_count
        while row.state == "open" and len(counting := self._judge(row)) >= wanted:
            last = max(update.sent_at for update in counting)
            yield from self.close(row, spec, max(last, row.now().opened_at))

    def close(
        self, row: Federation, spec: PipelineSpec, at: datetime
    ) -> Iterator[Event]:
        """Close the open round; open the next one, or store the job of the result.

        Parameters
        ----------
        at : when it ends, and the next one begins.
        """
        rules, now = row.how(), row.now()
        counting = self._judge(row)
        obstacle = None
        if len(counting) < rules.min_sites:
            obstacle = f"{len(counting)} sites until the deadline, of {rules.min_sites}"
        elif not _is_encoding_the_same(row, spec):
            obstacle = "the pipeline file's features or classes changed meanwhile"
        refused = self._forget(row)
        if obstacle:
            row.state = "failed"
            yield _closed(row, refused, outcome="failed", detail=obstacle)
            return
        weights, shares = core.aggregated(now, counting, rules)
        names = sorted({*json.loads(row.sites), *(share.site for share in shares)})
        row.sites = json.dumps(names)
        row.row_count = sum(share.row_count for share in shares)
        detail = f"{len(shares)} sites of {rules.site_count}, {row.row_count:,} rows"
        is_last = now.number == rules.rounds
        yield _closed(
            row, refused, outcome="averaged", detail=detail, took_part=shares,
            weights=weights, is_last=is_last,
        )  # fmt: skip
        if not is_last:
            row.set_round(core.next_round(now, weights, at, rules.round_minutes))
            yield self._opened(row, spec)
            return
        row.state, row.weights = "waiting", json.dumps(weights)
        self.session.flush()
        yield from self.measure(row.pipeline, spec)

    def measure(self, pipeline: str, spec: PipelineSpec) -> Iterator[Event]:
        """Store jobs for results that wait, if there are rows to measure them on."""
        wake = self.wake
        for row in waiting_federations(self.session, pipeline):
            job_id = result.job_id_of(row)
            if self.session.get(TrainerJob, job_id) is not None:  # told of, and ended
                row.state = "done"
                continue
            started = result.job_of(self.session, row, spec)
            if started is not None:
                row.state = "done"
                listen(self.session, "after_commit", lambda _: wake.set())
                if not has_begun(self.recorded, pipeline, job_id):
                    yield started

    def _forget(self, row: Federation) -> list[RefusedUpdate]:
        """Delete the round's updates; return those that did not count."""
        refused = []
        for kept in updates_of(self.session, row.id, row.number):
            if kept.reason is not None:
                refused.append(
                    RefusedUpdate.model_validate(
                        {"site": kept.site, "reason": kept.reason,
                         "detail": kept.detail}
                    )
                )  # fmt: skip
            self.session.delete(kept)
        self.session.flush()
        return refused[:MAX_TOLD]


def _is_encoding_the_same(row: Federation, spec: PipelineSpec) -> bool:
    kept = row.encoded()
    low = kept.target_centre - kept.target_half_range
    high = kept.target_centre + kept.target_half_range
    try:
        found = encoding_of(spec, (low, high))
    except NotFederatedError:
        return False
    names = {"task", "target", "classes", "columns"}
    return found.model_dump(include=names) == kept.model_dump(include=names)


def _closed(
    row: Federation,
    refused: list[RefusedUpdate],
    *,
    outcome: str,
    detail: str,
    took_part: list[SiteShare] | None = None,
    weights: list[float] | None = None,
    is_last: bool = True,
) -> Event:
    closed = FederatedRoundClosed.model_validate(
        {
            "pipeline": row.pipeline,
            "federation_id": row.id,
            "round": row.number,
            "outcome": outcome,
            "detail": detail,
            "took_part": took_part or [],
            "refused": refused,
            "weights": weights or [],
            "is_last": is_last,
        }
    )
    return closed.following(row.meta())
