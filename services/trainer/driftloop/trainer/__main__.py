"""``python -m driftloop.trainer``."""

from driftloop.runtime.service import run_service
from driftloop.trainer.app import SERVICE

if __name__ == "__main__":
    run_service(SERVICE)
