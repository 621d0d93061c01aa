"""A first run of a model in a child process, where a crash is only a verdict.

The child has limits on memory and processor time, an empty environment, and gets
bytes that are verified already. What it survives, this process may load.
"""

import json
import resource
import subprocess
import sys
from base64 import b64decode, b64encode

from driftloop.models.formats import MODEL_FILE
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import InputColumn, Package
from driftloop.models.samples import SAMPLES_FILE, check_samples

REFUSED = 3
"""Exit status of a child whose model is bad; any other than 0 is a crash."""
DETAIL_CHARACTERS = 500


class TrialFailed(ValueError):  # noqa: N818 - says what happened
    """A model could not be loaded, or answered its samples wrongly."""


def try_model(package: Package, timeout_s: float, memory_bytes: int) -> None:
    """Load the model in a child and compare the answers to its samples.

    Raises
    ------
    TrialFailed
        With what the child said, or how it ended.
    """
    if SAMPLES_FILE not in package.files:
        raise TrialFailed(f"the package has no {SAMPLES_FILE}")
    task = {
        "model": b64encode(package.files[MODEL_FILE]).decode(),
        "inputs": [c.model_dump(mode="json") for c in package.manifest.inputs],
        "samples": b64encode(package.files[SAMPLES_FILE]).decode(),
        "memory_bytes": memory_bytes,
        "cpu_seconds": max(1, int(timeout_s)),
    }
    try:
        child = subprocess.run(
            [sys.executable, "-m", "driftloop.scorer.trial"],
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=timeout_s,
            env={},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TrialFailed(f"its samples took longer than {timeout_s:g} s") from error
    said = child.stdout.decode(errors="replace").strip()[:DETAIL_CHARACTERS]
    if child.returncode == REFUSED:
        raise TrialFailed(said)
    if child.returncode:
        last_words = child.stderr.decode(errors="replace").strip()[-DETAIL_CHARACTERS:]
        raise TrialFailed(
            f"loading it ended the process with status {child.returncode}: {last_words}"
        )


def main() -> int:
    """Run in the child: read the task, try the model, say what is wrong."""
    task = json.load(sys.stdin)
    limits = (
        (resource.RLIMIT_AS, task["memory_bytes"]),
        (resource.RLIMIT_CPU, task["cpu_seconds"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    )
    for what, limit in limits:
        resource.setrlimit(what, (limit, limit))
    inputs = [InputColumn.model_validate(c) for c in task["inputs"]]
    try:
        model = OnnxModel(b64decode(task["model"]), inputs)
        check_samples(model, inputs, b64decode(task["samples"]))
    except Exception as error:  # noqa: BLE001 - whatever a model does is its verdict
        print(error)  # noqa: T201 - the parent reads it
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
