"""Reads what the log says of a pipeline, to the end that it has now."""

import threading

from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject
from driftloop.runtime.follower import bounds_of, read_part
from driftloop.runtime.telemetry import log
from driftloop.scorer.background import Breaks
from driftloop.scorer.jobs.facts import EVENTS, Facts
from driftloop.scorer.settings import ScorerSettings

TOPICS = [event.topic() for event in EVENTS]
logger = log(__name__)


def read_facts(
    settings: ScorerSettings,
    store: ArtifactStore,
    pipeline: str,
    wanted: str,
    stopping: threading.Event,
) -> Facts:
    """Return what the log says of a pipeline now.

    Read for each job: what a request may name was on the log before the request, on
    topics of other services, and no topic is behind another then.

    Parameters
    ----------
    wanted : the version of its dataset that is asked for.

    Raises
    ------
    LogSilentError
        When the broker is away.
    Retry
        When what an event refers to cannot be fetched now.
    """
    facts, key = Facts(pipeline, wanted), pipeline.encode()
    breaks = Breaks(stopping)
    broker, config = settings.broker, settings.kafka_config
    for chunk in read_part(broker, bounds_of(broker, TOPICS, config), config):
        for message in chunk:
            if message.key != key:
                continue
            try:
                facts.take(decode(message, store))
            except Reject as error:
                logger.warning("left out", topic=message.topic, error=str(error))
        breaks.rest()
    return facts
