"""``python -m driftloop.ingest``."""

from driftloop.ingest.app import SERVICE
from driftloop.runtime.service import run_service

if __name__ == "__main__":
    run_service(SERVICE)
