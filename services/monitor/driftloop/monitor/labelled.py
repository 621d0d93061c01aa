"""From labelled rows to blocks of one version, closed in event time."""

import numpy as np
from driftloop.models.losses import measured, no_skill_loss
from driftloop.models.pairing import Labelled, as_time
from driftloop.monitor.error_drift import block_rows
from driftloop.monitor.state import Block, OpenBlock, Watch

MAX_TARGETS = 2000
"""Newest targets from which a guess without skill is made."""


def with_labelled(
    watch: Watch, rows: Labelled, metric: str, window_rows: int
) -> tuple[Watch, list[Block]]:
    """Add rows to the open block of their version, and close what is full.

    A block that another version left open is dropped when it is short of rows: it
    belongs to neither.
    """
    size = block_rows(window_rows)
    is_same = watch.open_block and watch.open_block.version == rows.champion_version
    before = watch.open_block if is_same else None
    version = rows.champion_version
    opened = before or OpenBlock(version=version)
    times = np.concatenate([np.array(opened.times_us, dtype=np.int64), rows.times_us])
    losses = np.concatenate([np.array(opened.losses), rows.champion])
    targets = [*opened.targets, *rows.targets]
    recent = list(watch.targets)
    closed = []
    full = len(times) // size * size
    for number, first in enumerate(range(0, full, size), watch.next_block):
        cut = slice(first, first + size)
        recent = [*recent, *targets[cut]][-min(window_rows, MAX_TARGETS) :]
        closed.append(
            Block(
                number=number,
                version=version,
                start=as_time(times[cut].min()),
                end=as_time(times[cut].max()),
                row_count=size,
                loss=measured(metric, losses[cut]),
                no_skill=measured(metric, np.array([no_skill_loss(metric, recent)])),
            )
        )
    left = OpenBlock(
        version=version,
        times_us=tuple(times[full:].tolist()),
        losses=tuple(losses[full:].tolist()),
        targets=tuple(targets[full:]),
    )
    update = {
        "open_block": left,
        "targets": tuple(recent),
        "next_block": watch.next_block + len(closed),
    }
    return watch.model_copy(update=update), closed
