"""What the ``federated`` commands do: ask for rounds, and take part in them."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.data import applied, publish_event, publisher
from driftloop.cli.federated import site as sites
from driftloop.cli.log import Entry, follow_log, read_log
from driftloop.contracts.base import NAME_PATTERN, Chain, Meta
from driftloop.contracts.events import (
    FederatedRoundClosed,
    FederatedRoundOpened,
    FederatedUpdateSubmitted,
    FederationRequested,
)
from driftloop.contracts.federated import (
    FederationRules,
    LocalTraining,
    NotFederatedError,
    SiteName,
    encoding_of,
)
from driftloop.runtime.envelope import encode
from pydantic import TypeAdapter, ValidationError

NAMED = ("rounds", "site_count", "local")
ANSWER_TIMEOUT_S = 60.0
TARGET_KEYS = ("target_min", "target_max")
LOCAL_KEYS = tuple(LocalTraining.model_fields)
SETTABLE = (
    *(n for n in FederationRules.model_fields if n not in NAMED), *LOCAL_KEYS,
    *TARGET_KEYS,
)  # fmt: skip
_site_name = TypeAdapter(SiteName)


@dataclass(frozen=True)
class Wish:
    """Who asks for a federation, and how the target of a regression is scaled."""

    by: str
    reason: str
    target_min: float | None = None
    target_max: float | None = None


def rules_of(
    rounds: int, site_count: int, more: Sequence[str]
) -> tuple[FederationRules, tuple[float | None, float | None]]:
    """Return the rules, and the least and greatest target where they are given.

    Parameters
    ----------
    more : ``KEY=VALUE`` each, of :data:`SETTABLE`.

    Raises
    ------
    CommandError
        Names what is wrong.
    """
    given: dict[str, object] = {"min_sites": site_count}
    local: dict[str, str] = {}
    ends: dict[str, float] = {}
    for text in more:
        key, _, value = text.partition("=")
        if key not in SETTABLE:
            raise CommandError(f"--set {text}: no such key; use {', '.join(SETTABLE)}")
        if key in TARGET_KEYS:
            ends[key] = _number(key, value)
        elif key in LOCAL_KEYS:
            local[key] = value
        else:
            given[key] = value
    given |= {"rounds": rounds, "site_count": site_count, "local": local}
    try:
        rules = FederationRules.model_validate(given)
    except ValidationError as error:
        texts = [
            f"{'.'.join(map(str, problem['loc'])) or 'rules'}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise CommandError("; ".join(texts)) from error
    return rules, (ends.get("target_min"), ends.get("target_max"))


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CommandError(f"--set {key}={text}: not a finite number")
    return value


def open_rounds(
    installation: Installation, pipeline: str, rules: FederationRules, wish: Wish
) -> FederatedRoundOpened:
    """Ask for a federation; return its first round.

    Raises
    ------
    CommandError
        When the pipeline cannot be trained so, the trainer refuses, or does not answer.
    """
    low, high = wish.target_min, wish.target_max
    try:
        encoding_of(
            applied(installation, pipeline),
            None if low is None or high is None else (low, high),
        )
    except NotFederatedError as error:
        raise CommandError(
            f"{pipeline} cannot be trained by sites:\n{error}"
        ) from error
    _check_none_is_open(installation, pipeline)
    event = FederationRequested(
        pipeline=pipeline, requested_by=wish.by, reason=wish.reason, rules=rules,
        target_min=low, target_max=high,
    )  # fmt: skip
    asked = publish_event(installation, event)
    answers: list[FederatedRoundOpened | FederatedRoundClosed] = []
    answered = threading.Event()

    def take(entry: Entry) -> None:
        if entry.meta.causation_id == asked and isinstance(
            entry.event, FederatedRoundOpened | FederatedRoundClosed
        ):
            answers.append(entry.event)
            answered.set()

    follower = follow_log(
        installation.bootstrap,
        sites.TOPICS,
        installation.store,
        take,
        installation.settings.kafka_config,
    )
    answered.wait(ANSWER_TIMEOUT_S)
    follower.stop()
    if not answers:
        raise CommandError(
            f"no answer within {ANSWER_TIMEOUT_S:.0f} s; the wish is stored, and the "
            "trainer takes it when it is back: driftloop status"
        )
    answer = answers[0]
    if isinstance(answer, FederatedRoundClosed):
        raise CommandError(f"the trainer opens no round: {answer.detail}")
    return answer


def _check_none_is_open(installation: Installation, pipeline: str) -> None:
    known = sites.Rounds(pipeline)
    log = read_log(
        installation.bootstrap,
        sites.TOPICS,
        installation.store,
        config=installation.settings.kafka_config,
    )
    for entry in log:
        known.take(entry)
    for opened in known.waiting(datetime.now(UTC)):
        raise CommandError(
            f"round {opened.round} of federation {opened.federation_id} is open until "
            f"{opened.deadline:%Y-%m-%d %H:%M} UTC; sites join that one, or wait"
        )


Said = FederatedUpdateSubmitted | FederatedRoundClosed


def join(
    installation: Installation,
    pipeline: str,
    site: str,
    file: Path,
    rounds: int | None,
    show: Callable[[Said], None],
) -> list[FederatedUpdateSubmitted]:
    """Take part until the federation ends, or for so many rounds.

    Waits for a round to open if none is.

    Raises
    ------
    CommandError
        When the site's name or rows are not right.
    """
    try:
        _site_name.validate_python(site)
    except ValidationError as error:
        raise CommandError(
            f"--site {site!r} is no name; it matches {NAME_PATTERN}"
        ) from error
    rows, known = sites.rows_of(file), sites.Rounds(pipeline)
    lock, news = threading.Lock(), threading.Event()

    def take(entry: Entry) -> None:
        with lock:
            known.take(entry)
        news.set()

    follower = follow_log(
        installation.bootstrap,
        sites.TOPICS,
        installation.store,
        take,
        installation.settings.kafka_config,
    )
    sent: dict[tuple[str, int], FederatedUpdateSubmitted] = {}
    try:
        follower.caught_up.wait()
        while True:
            news.clear()
            with lock:
                waiting = known.waiting(datetime.now(UTC))
            for opened in waiting:
                key = (opened.federation_id, opened.round)
                if key not in sent and (rounds is None or len(sent) < rounds):
                    sent[key] = sites.update_of(opened, site, rows)
                    submit(installation, sent[key])
                    show(sent[key])
            with lock:
                ends = [known.end_of(name) for name, _ in sent]
            end = next((one for one in ends if one is not None), None)
            if end is not None:
                show(end)
            if end is not None or (rounds is not None and len(sent) >= rounds):
                return list(sent.values())
            news.wait()
    finally:
        follower.stop()


def submit(installation: Installation, update: FederatedUpdateSubmitted) -> None:
    """Publish an update; one that is sent again has the same id, and counts once."""
    event_id = sites.event_id_of(update)
    source = f"/sites/{update.site}"
    meta = Meta(event_id, datetime.now(UTC), source, Chain(event_id))
    sender = publisher(installation)
    try:
        sender.publish([encode(update, meta, installation.store)])
    finally:
        sender.close()
