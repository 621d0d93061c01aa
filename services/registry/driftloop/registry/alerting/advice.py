"""What people can do about an alert, by the first word of its condition."""

import re

FALLBACK = "See what led to it: driftloop alerts show {id}"
ADVICE = {
    "sensor_fault": "Mend the source of {subject}; nothing is trained from its values.",
    "missing_column": "Find out why {subject} is not sent any more; rows go on "
    "without it where the file lets it be null.",
    "feature_drift": "Nothing, unless the error rises: then a training is started. "
    "Look at the inputs: driftloop why {pipeline}",
    "serving_skew": "Make callers send, or the door read, what is learned from.",
    "estimate": "See what it rests on and which labels are awaited: driftloop "
    "performance {pipeline}",
    "slice": "See all slices: driftloop performance {pipeline}",
    "metric": "See it by window: driftloop performance {pipeline}",
    "labels_late": "Find out why no labels come: driftloop performance {pipeline}",
    "training-failed": "See why: driftloop jobs show {subject}; then driftloop retrain "
    "{pipeline}",
    "rolled-back": "See why: driftloop why {pipeline}; compare the versions before "
    "another goes into service.",
    "version-fails": "See what fails: driftloop models {pipeline}; bring the version "
    "before back: driftloop rollback {pipeline}",
    "approval-expired": "Ask again: driftloop request-approval {pipeline}/{subject}",
    "promotion-expired": "Ask again: driftloop request-promotion {pipeline}/{subject}",
    "edge": "Export another version and start it there: driftloop export {pipeline} "
    "--to FOLDER",
}


def advice_for(alert_id: str, pipeline: str, condition: str) -> str:
    """Return what to do; a step that is a command can be run as it stands.

    >>> advice_for("a1", "churn", "training-failed/j7").split(";")[0]
    'See why: driftloop jobs show j7'
    """
    words = re.split(r"[:/]", condition)
    at = next((n for n, word in enumerate(words) if word in ADVICE), None)
    if at is None:
        return FALLBACK.format(id=alert_id)
    subject = words[at + 1] if at + 1 < len(words) else pipeline
    return ADVICE[words[at]].format(pipeline=pipeline, subject=subject)
