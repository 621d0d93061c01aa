"""``python -m driftloop.local``: the local stack without the command line package."""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

from driftloop.local import stack


def main() -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m driftloop.local")
    parser.add_argument("command", choices=("up", "down", "status", "supervise"))
    parser.add_argument("home", nargs="?", type=Path)
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--wipe", action="store_true")
    parser.add_argument("--scorers", type=int, default=1)
    parser.add_argument("--environment", action="append", default=[])
    options = parser.parse_args()
    home = options.home or Path(os.environ.get("DRIFTLOOP_HOME", ".driftloop"))
    try:
        if options.command == "supervise":
            services = stack.with_scorers(options.scorers, options.environment)
            stack.supervise(home, services=services)
        elif options.command == "down":
            stack.down(home, options.wipe)
        elif options.command == "up":
            say = partial(print, file=sys.stderr, flush=True)
            stack.up(
                home,
                options.foreground,
                scorers=options.scorers,
                environments=options.environment,
                progress=say,
            )
        if options.command in ("up", "status"):
            print(json.dumps(stack.status(home), indent=2))
    except (RuntimeError, ValueError) as error:  # the errors that the modules document
        print(f"driftloop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
