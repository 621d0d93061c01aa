"""``python -m driftloop.scorer``."""

from driftloop.runtime.service import run_service
from driftloop.scorer.app import SERVICE

if __name__ == "__main__":
    run_service(SERVICE)
