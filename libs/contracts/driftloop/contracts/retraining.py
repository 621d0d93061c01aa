"""When a pipeline trains: triggers, and what holds them back. All in event time."""

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError
from driftloop.contracts.base import Section
from pydantic import Field, field_validator, model_validator

ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class ScheduleSection(Section):
    """A training by the calendar of the data, whatever the verdicts say."""

    every_days: float | None = Field(
        default=None, gt=0, description="after the newest row of the training before"
    )
    cron: str | None = Field(
        default=None,
        description="or five fields in UTC: minute, hour, day of month, month, day of "
        "week; `0 3 * * 1` is Mondays at three",
    )

    @field_validator("cron")
    @classmethod
    def _comes_at_some_time(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                next_cron(value, ANY_TIME)
            except CronSimError as error:
                raise ValueError(
                    f"not a cron expression: {error}; an example is 0 3 * * 1"
                ) from error
            except StopIteration as error:
                raise ValueError("this day never comes; see the month") from error
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "ScheduleSection":
        if self.every_days is not None and self.cron is not None:
            raise ValueError("give every_days or cron, not both")
        return self

    def due_after(self, time: datetime) -> datetime | None:
        """Return when the next training is due; None: there is no schedule.

        >>> start = datetime(2011, 1, 1, tzinfo=UTC)
        >>> str(ScheduleSection(cron="0 3 * * 1").due_after(start))
        '2011-01-03 03:00:00+00:00'
        """
        if self.every_days is not None:
            return time + timedelta(days=self.every_days)
        return None if self.cron is None else next_cron(self.cron, time)


def next_cron(expression: str, time: datetime) -> datetime:
    """Return the first moment after ``time`` that an expression names, in UTC."""
    return next(CronSim(expression, time.astimezone(UTC)))


class AccuracyFloorSection(Section):
    """A training when the model in service is worse than it may be."""

    max_loss: float | None = Field(
        default=None, description="worst right value of the metric in `train`"
    )
    window_rows: int = Field(
        default=200, ge=20, description="labelled rows that are judged together"
    )
    patience: int = Field(
        default=2,
        ge=1,
        description="so many bad windows in a row, so that noise is none",
    )


class BudgetSection(Section):
    """What trainings may cost; those that a person asks for count and are not held."""

    trainings: int | None = Field(default=None, ge=1, description="at most so many")
    cpu_minutes: float | None = Field(
        default=None,
        gt=0,
        description="at most so much, as measured; a training that runs is not ended",
    )
    days: float = Field(default=30, gt=0, description="that `budget` is for")


class CostSection(Section):
    """Whether a training is worth it: what waiting costs against what acting costs.

    All in one unit of the pipeline's own: euros, kilowatt hours, minutes of somebody.
    """

    loss_unit_value: float | None = Field(
        default=None,
        gt=0,
        description="what one unit of a row's loss costs (of its squared error for "
        "rmse); empty: trainings are not weighed",
    )
    unit: str = Field(default="", description="of all figures here, for people")
    training: float = Field(default=0.0, ge=0, description="what a training costs")
    rollout: float = Field(
        default=0.0, ge=0, description="what it costs to bring a version into service"
    )
    horizon_days: float = Field(
        default=30, gt=0, description="for which a gain is counted"
    )
    window_rows: int = Field(
        default=200, ge=20, description="newest labelled rows that say what is lost now"
    )


class RetrainSection(Section):
    """When training is worth it. Durations are event time."""

    first_rows: int = Field(default=1000, ge=20, description="labelled rows for v1")
    on_drift: bool = Field(
        default=True, description="when a verdict says that training is the cure"
    )
    every_rows: int | None = Field(
        default=None, ge=1, description="also after so many new labelled rows"
    )
    schedule: ScheduleSection = ScheduleSection()
    accuracy_floor: AccuracyFloorSection = AccuracyFloorSection()
    cooldown_days: float = Field(
        default=7, ge=0, description="between the starts of two trainings"
    )
    budget: BudgetSection = BudgetSection()
    cost: CostSection = CostSection()
