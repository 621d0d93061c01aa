"""``python -m driftloop.validator``."""

from driftloop.runtime.service import run_service
from driftloop.validator.app import SERVICE

if __name__ == "__main__":
    run_service(SERVICE)
