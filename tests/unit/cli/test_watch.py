"""Signs of life come all the time; ``watch`` shows those that say something."""

from driftloop.cli.data import Alive
from driftloop.contracts.events import ScorerReported, VersionReport


def reported(
    *versions: int, replica: str = "a", lease: float | None = 90.0
) -> ScorerReported:
    return ScorerReported(
        pipeline="bikes",
        replica=replica,
        generation=1,
        versions=[
            VersionReport(version=version, role="champion", state="ready")
            for version in versions
        ],
        lease_seconds=lease,
    )


def test_a_sign_of_life_is_shown_once_for_each_state_of_a_replica() -> None:
    alive = Alive()
    told = [reported(), reported(1), reported(1, replica="b"), reported(1)]
    assert [alive.is_nothing_new(event) for event in told] == [False] * 3 + [True]
    assert not alive.is_nothing_new(reported(1, 2))


def test_figures_are_always_shown() -> None:
    alive = Alive()
    figures = reported(1, lease=None)
    assert [alive.is_nothing_new(figures) for _ in range(2)] == [False, False]
