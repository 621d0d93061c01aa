"""Faust's Kafka transport, made to begin where it is told; and its credentials."""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import faust
from driftloop.runtime.drivers.probe import Partition
from faust.transport.drivers import aiokafka

Begin = Callable[[Mapping[Partition, int | None]], dict[Partition, int]]
"""Committed offsets of all assigned partitions to those to begin at; a partition
that is left out begins at its first record."""


class Transport(aiokafka.Transport):  # type: ignore[misc]  # no types
    """Faust's transport with :class:`Consumer`.

    Parameters
    ----------
    begin : called in a thread before reading (re)starts; see :data:`Begin`.
    begun : told the offsets at which reading begins now.
    forget : called when an assignment ends or a new one is made.
    """

    def __init__(
        self,
        url: Any,
        app: Any,
        begin: Begin,
        begun: Callable[[Mapping[Partition, int]], None],
        forget: Callable[[], None],
    ) -> None:
        super().__init__(url, app)
        self.begin = begin
        self.begun = begun
        self.forget = forget


class Consumer(aiokafka.Consumer):  # type: ignore[misc]  # no types
    """Faust's consumer; whenever reading (re)starts, it seeks in this one place.

    The inherited method leaves partitions without a committed offset where they
    are: records that were fetched and dropped in a rebalance before the first
    commit would never be read.
    """

    transport: Transport
    _held: frozenset[Any] = frozenset()

    def pause_partitions(self, tps: Iterable[Any]) -> None:
        self._held -= frozenset(tps)
        super().pause_partitions(tps)

    def resume_partitions(self, tps: Iterable[Any]) -> None:
        """Resume changelogs now, all others after the seek.

        Table recovery resumes the stream's partitions and seeks only then. What is
        fetched in between is handed over too early, and what the seek brings again
        is dropped as known.
        """
        now = {tp for tp in tps if self._is_changelog_tp(tp)}
        self._held |= frozenset(tps) - now
        super().resume_partitions(now)

    async def perform_seek(self) -> None:
        await super().perform_seek()
        held, self._held = self._held, frozenset()
        super().resume_partitions(held & self.assignment())

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self.transport.forget()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(
        self, assigned: Any, generation_id: int = 0
    ) -> None:
        self.transport.forget()
        await super().on_partitions_assigned(assigned, generation_id)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        everything = await super().seek_to_committed()
        # Changelogs have no committed offset; table recovery moves them itself.
        committed = {
            (tp.topic, tp.partition): at
            for tp, at in everything.items()
            if not self._is_changelog_tp(tp)
        }
        begin = await asyncio.to_thread(self.transport.begin, committed)
        by_name = {(tp.topic, tp.partition): tp for tp in everything}
        unknown = [by_name[name] for name in committed if name not in begin]
        target = dict(await self.earliest_offsets(*unknown)) if unknown else {}
        target |= {by_name[name]: offset for name, offset in begin.items()}
        # Before the seek: the first record may be handed over while it still waits.
        self.transport.begun(
            {(tp.topic, tp.partition): at for tp, at in target.items()}
        )
        if target:
            await self.seek_wait(target)
        return {**everything, **target}


Transport.Consumer = Consumer


def credentials(client_config: Mapping[str, str]) -> Any:
    """Translate librdkafka's security settings into Faust's; None: plain text.

    Raises
    ------
    ValueError
        For a protocol or mechanism that this translation does not know.

    >>> credentials({"fetch.max.bytes": "1000"}) is None
    True
    """
    protocol = client_config.get("security.protocol", "plaintext").lower()
    if protocol == "plaintext":
        return None
    context = None
    if protocol in {"ssl", "sasl_ssl"}:
        context = ssl.create_default_context(
            cafile=client_config.get("ssl.ca.location")
        )
        certificate = client_config.get("ssl.certificate.location")
        if certificate:
            context.load_cert_chain(certificate, client_config.get("ssl.key.location"))
    if protocol == "ssl":
        return faust.SSLCredentials(context=context)
    mechanism = client_config.get("sasl.mechanism") or client_config["sasl.mechanisms"]
    if protocol not in {"sasl_ssl", "sasl_plaintext"} or mechanism not in {
        "PLAIN",
        "SCRAM-SHA-256",
        "SCRAM-SHA-512",
    }:
        raise ValueError(f"no Faust credentials for {protocol} with {mechanism}")
    return faust.SASLCredentials(
        username=client_config["sasl.username"],
        password=client_config["sasl.password"],
        mechanism=mechanism,
        ssl_context=context,
    )
