"""Topics and access rights on the broker, from the topic table.

``python -m driftloop.runtime.admin`` creates the topics; with ``--rights`` also the
access rights, for a broker that asks clients who they are. Both may be repeated.
"""

import sys
import time
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from driftloop.contracts.access import Right, access_rights, outside_rights
from driftloop.contracts.topics import all_topics
from driftloop.runtime.settings import Settings, load_settings

TIMEOUT_S = 30.0
POLL_S = 0.1
ANY_RIGHT = AclBindingFilter(
    ResourceType.ANY,
    None,
    ResourcePatternType.ANY,
    None,
    None,
    AclOperation.ANY,
    AclPermissionType.ANY,
)


def create_topics(
    bootstrap: str,
    config: Mapping[str, str] | None = None,
    *,
    replication: int = 1,
    prefix: str = "",
) -> list[str]:
    """Create the topics that are missing; return their names.

    Raises
    ------
    KafkaException
        When the broker refuses or does not answer.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, **(config or {})})
    wanted = [
        NewTopic(prefix + name, partitions, replication, config=settings)
        for name, partitions, settings in all_topics()
    ]
    created = []
    for name, future in admin.create_topics(wanted, request_timeout=TIMEOUT_S).items():
        try:
            future.result(TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        else:
            created.append(name)
    return created


def grant_rights(
    bootstrap: str, config: Mapping[str, str] | None = None
) -> list[Right]:
    """Give each service, people and upstream their rights; return them.

    Returns once the broker acts by them: it learns of them after the controller.

    Raises
    ------
    KafkaException
        When the broker refuses or does not answer.
    TimeoutError
        When they are not in force after ``TIMEOUT_S``.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, **(config or {})})
    rights = [*access_rights(), *outside_rights()]
    bindings = [_binding(right) for right in rights]
    for future in admin.create_acls(bindings, request_timeout=TIMEOUT_S).values():
        future.result(TIMEOUT_S)
    until = time.monotonic() + TIMEOUT_S
    while set(bindings) - set(admin.describe_acls(ANY_RIGHT).result(TIMEOUT_S)):
        if time.monotonic() > until:
            raise TimeoutError(f"rights are not in force after {TIMEOUT_S:g} s")
        time.sleep(POLL_S)
    return rights


def _binding(right: Right) -> AclBinding:
    return AclBinding(
        ResourceType[right.resource],
        right.name,
        ResourcePatternType.PREFIXED
        if right.is_prefix
        else ResourcePatternType.LITERAL,
        f"User:{right.service}",
        "*",  # from any host: the network is the compose file's or the cluster's part
        AclOperation[right.operation],
        AclPermissionType.ALLOW,
    )


def main() -> None:
    """Set up the broker that the settings name."""
    settings = load_settings(Settings, "admin")
    created = create_topics(settings.broker, settings.kafka_config)
    sys.stdout.write(f"created {len(created)} topics\n")
    if "--rights" in sys.argv[1:]:
        rights = grant_rights(settings.broker, settings.kafka_config)
        sys.stdout.write(f"granted {len(rights)} rights\n")


if __name__ == "__main__":
    main()
