"""Times of events are moments in UTC, or an error that says what would be one."""

from datetime import UTC, datetime

import pytest
from driftloop.contracts.base import UtcTime
from pydantic import TypeAdapter, ValidationError

TIME: TypeAdapter[datetime] = TypeAdapter(UtcTime)


def test_a_time_is_told_in_utc() -> None:
    found = TIME.validate_python("2011-01-01T02:30:00+02:00")
    assert (found, found.tzinfo) == (datetime(2011, 1, 1, 0, 30, tzinfo=UTC), UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2011-01-01T00:00:00", "needs a zone"),
        ("0001-01-01T00:00:01+03:04", "years 1 to 9999"),
        ("9999-12-31T23:59:59-01:00", "years 1 to 9999"),
    ],
)
def test_what_is_no_moment_in_utc(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TIME.validate_python(text)
