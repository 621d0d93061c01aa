"""What MLflow's clients are told when something is refused."""

from http import HTTPStatus

STATUS = {
    "INVALID_PARAMETER_VALUE": HTTPStatus.BAD_REQUEST,
    "RESOURCE_ALREADY_EXISTS": HTTPStatus.BAD_REQUEST,
    "RESOURCE_DOES_NOT_EXIST": HTTPStatus.NOT_FOUND,
    "ENDPOINT_NOT_FOUND": HTTPStatus.NOT_FOUND,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "DATA_LOSS": HTTPStatus.INTERNAL_SERVER_ERROR,
    "RESOURCE_CONFLICT": HTTPStatus.CONFLICT,
    "INVALID_STATE": HTTPStatus.INTERNAL_SERVER_ERROR,
    "QUOTA_EXCEEDED": HTTPStatus.INSUFFICIENT_STORAGE,
    "TEMPORARILY_UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""HTTP status by error code.

Source: ``ERROR_CODE_TO_HTTP_STATUS`` of mlflow 3.17; an INVALID_STATE is a 500 there,
which its client raises like any other refusal. A QUOTA_EXCEEDED has none there; its
client tries a 429 again and again, and a 507 never.
"""


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of ours
    """A request that is not done; the client raises ``MlflowException`` from it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        return int(STATUS[self.code])


def invalid(message: str) -> Refusal:
    return Refusal("INVALID_PARAMETER_VALUE", message)


def absent(message: str) -> Refusal:
    return Refusal("RESOURCE_DOES_NOT_EXIST", message)


def exists(message: str) -> Refusal:
    return Refusal("RESOURCE_ALREADY_EXISTS", message)
