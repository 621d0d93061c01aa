"""Dataset versions as the page shows them, and those that models learned from.

A version is written ``730.365``: observations at their version 730 with the labels at
365 (0: none yet).
"""

import re
from collections.abc import Iterable
from typing import Any

from driftloop.contracts import events as e
from driftloop.contracts.base import Event

MAX_VERSIONS = 5_000
SHOWN_VERSIONS = 6
SHOWN_LEARNED = 6

Order = tuple[int, int]
_is_version = re.compile(r"(\d{1,12})\.(\d{1,12})").fullmatch


def order_of(dataset: e.DatasetRef) -> Order:
    """Return the versions of both tables."""
    labels = dataset.labels.version if dataset.labels else 0
    return dataset.observations.version, labels


def name_of(order: Order) -> str:
    """Return a version as people write it.

    >>> name_of((730, 365))
    '730.365'
    """
    return f"{order[0]}.{order[1]}"


class Versions:
    """The newest versions of a dataset, by the versions of its tables."""

    def __init__(self) -> None:
        self.revision = 0
        self._kept: dict[Order, e.DatasetVersioned] = {}

    @property
    def newest(self) -> e.DatasetVersioned | None:
        return self._kept[max(self._kept)] if self._kept else None

    def take(self, event: e.DatasetVersioned) -> None:
        order = order_of(event.dataset)
        old = self._kept.get(order)
        if old is None or _time(event) > _time(old):
            self._kept[order] = event
        if len(self._kept) > MAX_VERSIONS:
            for oldest in sorted(self._kept)[: MAX_VERSIONS // 10]:
                del self._kept[oldest]

    def find(self, name: str) -> e.DatasetVersioned | None:
        """Return the version of a name."""
        match = _is_version(name)
        return self._kept.get((int(match[1]), int(match[2]))) if match else None

    def shown(self, decisions: Iterable[Event]) -> dict[Order, list[int]]:
        """Return the newest versions, and those of models with the models' numbers."""
        learned = models_by_version(decisions)
        newest = sorted(self._kept, reverse=True)[:SHOWN_VERSIONS]
        of_models = [o for o in sorted(learned, reverse=True) if o in self._kept]
        chosen = {*newest, *of_models[:SHOWN_LEARNED]}
        return {order: learned.get(order, []) for order in sorted(chosen, reverse=True)}

    def as_json(self, decisions: Iterable[Event]) -> dict[str, Any]:
        """Return what the page shows of it."""
        return {
            "count": len(self._kept),
            "shown": [
                _line(self._kept[order], models)
                for order, models in self.shown(decisions).items()
            ],
        }


def models_by_version(decisions: Iterable[Event]) -> dict[Order, list[int]]:
    """Return the registered model versions by what they learned from."""
    learned: dict[str, Order] = {}
    registered: dict[str, int] = {}
    for event in decisions:
        if isinstance(event, e.TrainingStarted | e.ModelTrained):
            learned[event.job_id] = order_of(event.dataset)
        elif isinstance(event, e.ModelRegistered):
            registered[event.job_id] = event.version
    found: dict[Order, list[int]] = {}
    for job, version in sorted(registered.items(), key=lambda pair: pair[1]):
        if job in learned:
            found.setdefault(learned[job], []).append(version)
    return found


def _time(event: e.DatasetVersioned) -> tuple[Any, str]:
    return event.meta.time, event.meta.id


def _line(event: e.DatasetVersioned, models: list[int]) -> dict[str, Any]:
    return {
        "version": name_of(order_of(event.dataset)),
        "at": event.meta.time.isoformat(),
        "kind": event.kind,
        "added": event.added_count,
        "rows": event.observation_count,
        "labels": event.label_count,
        "start": event.span.start.isoformat(),
        "end": event.span.end.isoformat(),
        "models": models,
    }
