"""What a client's wish for a pipeline's version becomes: the same as the own REST's."""

from driftloop.registry.mlflow.call import DEFAULT_USER
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.registry.mlflow.registered.pipelines import Pipelines, Promote
from driftloop.registry.mlflow.registered.submission import Submissions
from driftloop.registry.recorded import RecordedVerdicts
from driftloop.registry.rest import Context
from driftloop.registry.writes import promote
from driftloop.runtime.identity.routing import Who
from fastapi import HTTPException

CODES = {
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    503: "TEMPORARILY_UNAVAILABLE",
}
"""By the status that the own REST would have answered."""


def as_registered(
    context: Context, recorded: RecordedVerdicts, submissions: Submissions
) -> Pipelines:
    """Return the pipelines as registered models."""

    def applied() -> dict[str, int]:
        return {
            name: int(event.meta.time.timestamp() * 1000)
            for name, event in context.pipelines.items()
        }

    def ask_as(who: Who) -> Promote:
        def ask(pipeline: str, version: int, by: str) -> None:
            if who.caller.is_operator and by == DEFAULT_USER:
                raise invalid(
                    "alias: say who asks for a version of a pipeline: set "
                    "MLFLOW_TRACKING_USERNAME, and the token as "
                    "MLFLOW_TRACKING_PASSWORD"
                )
            try:
                promote(context, who, (pipeline, version), by)
            except HTTPException as error:
                code = CODES.get(error.status_code, "RESOURCE_CONFLICT")
                raise Refusal(code, f"{pipeline}: {error.detail}") from error

        return ask

    return Pipelines(
        applied, recorded.newest, model_of=submissions.model_of, ask_as=ask_as
    )
