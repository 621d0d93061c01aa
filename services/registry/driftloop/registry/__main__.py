"""``python -m driftloop.registry``, and ``… rebuild``."""

import sys

from driftloop.registry.app import SERVICE
from driftloop.registry.rebuild.command import main
from driftloop.runtime.service import run_service

if __name__ == "__main__":
    if sys.argv[1:2] == ["rebuild"]:
        sys.exit(main(sys.argv[2:]))
    run_service(SERVICE)
