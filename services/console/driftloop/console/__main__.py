"""``python -m driftloop.console``."""

from driftloop.console.app import SERVICE
from driftloop.runtime.service import run_service

if __name__ == "__main__":
    run_service(SERVICE)
