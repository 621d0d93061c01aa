"""What a service does not need to start, it does not import: users wait for it."""

import json
import subprocess
import sys

ASKED = """
import importlib, json, sys
for name in ("trainer", "monitor", "validator"):
    importlib.import_module(f"driftloop.{name}.app")
print(json.dumps(sorted(sys.modules)))
"""
HEAVY = {"sklearn", "pandas", "scipy.stats", "torch", "river", "onnx.reference"}


def test_services_start_without_what_only_some_jobs_need() -> None:
    """Half of a trainer's start would go into libraries that its children use."""
    done = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, check=True
    )
    imported = set(json.loads(done.stdout))
    assert {"numpy", "scipy.special", "driftloop.trainer.jobs"} <= imported  # control
    assert imported & HEAVY == set()
