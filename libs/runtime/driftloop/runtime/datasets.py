"""Where a pipeline's Delta tables are, and what opens them.

The validator writes two tables a pipeline, and whoever got a ``DatasetRef`` in an
event reads them at its versions, as ``DeltaTable(ref.uri, version=ref.version,
storage_options=storage_options(settings))``:

``observations``
    ``id``, ``event_time``, ``source``, the features, the target (null where it
    was not known yet), ``extra`` (JSON of columns that the pipeline file does not
    name, null without any). Each id once.
``labels``
    ``id``, ``event_time``, ``source``, the target, ``revision`` (0 for the first
    label of an id, one more for each correction), ``extra``. An id's label is its
    row of the highest revision; it goes before the target in ``observations``.

The scorer writes beside them, below ``scores``, one table a scored version; see
``dataset-scored``.
"""

from urllib.parse import urlsplit

from driftloop.contracts.events import RowKind
from driftloop.runtime.settings import Settings

SCORES = "scores"


def table_uri(settings: Settings, pipeline: str, kind: RowKind) -> str:
    """Return where a table is: an absolute path or an ``s3://`` address."""
    return _below(settings, f"{pipeline}/{kind}")


def answers_uri(settings: Settings, pipeline: str, job_id: str) -> str:
    """Return where the scorer puts the answers of a job; see ``dataset-scored``."""
    return _below(settings, f"{pipeline}/{SCORES}/{job_id}")


def _below(settings: Settings, place: str) -> str:
    url = settings.datasets_url
    if url is not None and url.startswith("s3://"):
        return f"{url.rstrip('/')}/{place}"
    root = settings.home / "datasets" if url is None else settings.home.cwd() / url
    return str(root.resolve() / place)


def storage_options(settings: Settings) -> dict[str, str] | None:
    """Return what ``deltalake`` needs to reach the tables; None for a folder.

    Commits on S3 are made exclusive by conditional writes (``If-None-Match``). The
    server must understand them and decide atomically: one that ignores the header
    would let one commit replace another.

    Raises
    ------
    ValueError
        When an S3 address lacks its endpoint or keys.
    """
    if not (settings.datasets_url or "").startswith("s3://"):
        return None
    if not (
        settings.s3_endpoint_url and settings.s3_access_key and settings.s3_secret_key
    ):
        raise ValueError(
            "datasets_url is on S3: set DRIFTLOOP_S3_ENDPOINT_URL, "
            "DRIFTLOOP_S3_ACCESS_KEY and DRIFTLOOP_S3_SECRET_KEY"
        )
    is_plain = urlsplit(settings.s3_endpoint_url).scheme == "http"
    return {
        "AWS_ENDPOINT_URL": settings.s3_endpoint_url,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret_key.get_secret_value(),
        "AWS_REGION": settings.s3_region,
        "AWS_ALLOW_HTTP": str(is_plain).lower(),
        "conditional_put": "etag",
        # Give up soon: the runner tries again, and says so. A request that hangs is
        # given up after 30 s, the library's own limit.
        "max_retries": "2",
        "retry_timeout": "15s",
    }
