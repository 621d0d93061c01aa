"""A warm child: what its slowness says of a job, and what its end does."""

from pathlib import Path
from typing import Any

import pytest
from driftloop.runtime.errors import Retry
from driftloop.trainer import worker
from driftloop.trainer.child import ChildJob
from driftloop.trainer.worker import Crashed, Worker


class Loading:
    """A child that never comes to say that it is ready."""

    ended = 0

    def __init__(self, environment: Any) -> None: ...

    def next(self, timeout_s: float) -> None: ...

    def end(self) -> None:
        Loading.ended += 1


class Ending(Loading):
    """A child that ends before it is ready."""

    def next(self, timeout_s: float) -> None:
        raise Crashed("gone")


@pytest.mark.parametrize("child", [Loading, Ending])
def test_a_child_that_is_not_loaded_in_time_is_no_fault_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: type[Loading]
) -> None:
    """A busy machine is waited for like a store that is away; no child is left."""
    monkeypatch.setattr(worker, "Child", child)
    monkeypatch.setattr(worker, "START_TIMEOUT_S", 0.0)
    before = Loading.ended
    job = ChildJob(request="{}", folder=tmp_path)
    with pytest.raises(Retry, match="no child was loaded"):
        Worker({}).run(job, 60, lambda: True, lambda _: None)
    assert Loading.ended == before + 1
