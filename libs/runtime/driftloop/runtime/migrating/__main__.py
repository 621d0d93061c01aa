"""``python -m driftloop.runtime.migrating registry "what changes"``."""

import argparse
import sys

from driftloop.contracts.topics import SERVICES
from driftloop.runtime.migrating import write_step
from driftloop.runtime.schema import RUNTIME

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the next step of a row.")
    parser.add_argument("row", choices=[RUNTIME, *SERVICES])
    parser.add_argument("what", help="what changes, in a few words")
    asked = parser.parse_args()
    sys.stdout.write(f"{write_step(asked.row, asked.what)}\n")
