"""Whether a service has handled all that topics hold."""

from collections.abc import Collection, Mapping

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from driftloop.runtime.database import next_offset
from driftloop.runtime.telemetry import log
from sqlalchemy import Connection

TIMEOUT_S = 10.0
logger = log(__name__)


def has_handled(
    connection: Connection,
    bootstrap: str,
    topics: Collection[str],
    config: Mapping[str, str] | None = None,
) -> bool:
    """Whether every message that is in the topics now was handled, by any replica.

    False as well when the broker does not say what there is.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, **(config or {})})
    try:
        for topic in topics:
            partitions = admin.list_topics(topic, TIMEOUT_S).topics[topic].partitions
            for place, end in _ends(admin, topic, partitions).items():
                done = next_offset(connection, place.topic, place.partition) or 0
                if done < end:
                    return False
    except KafkaException as error:
        logger.warning("what topics hold is not known", error=str(error))
        return False
    return True


def _ends(
    admin: AdminClient, topic: str, partitions: Collection[int]
) -> dict[TopicPartition, int]:
    asked = {TopicPartition(topic, n): OffsetSpec.latest() for n in partitions}
    found = admin.list_offsets(asked, request_timeout=TIMEOUT_S)
    return {place: future.result(TIMEOUT_S).offset for place, future in found.items()}
