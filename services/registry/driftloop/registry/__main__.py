"""``python -m driftloop.registry``."""

from driftloop.registry.app import SERVICE
from driftloop.runtime.service import run_service

if __name__ == "__main__":
    run_service(SERVICE)
