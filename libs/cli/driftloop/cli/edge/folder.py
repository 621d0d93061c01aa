"""What an exported folder holds: every file as bytes, the same for the same version.

Pure but for the runner's own files, which are read from this package.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from driftloop.cli.edge.start import LIST, PACKAGE
from driftloop.models.formats import MODEL_FILE
from driftloop.models.package import PAYLOAD_TYPE, Package
from driftloop.models.samples import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_TOLERANCE,
    SAMPLES_FILE,
)

FORMAT = 1
MANIFEST, SIGNATURE, SIGNER = "manifest.json", "signature.json", "signer.pem"
FROM_PACKAGE = (MODEL_FILE, SAMPLES_FILE, "bom.json", "card.html", "card.json")
"""What of a package goes out: not what only a training needs, and no rows but the
samples."""
RUNNER = "runner.py"
REQUIREMENTS = """\
numpy>=2.2,<3
onnxruntime>=1.31,<2
"""
"""From the versions that packages are made with, up to those that may break them."""


@dataclass(frozen=True)
class Forced:
    """Why a version is exported that is not approved.

    Attributes
    ----------
    state : what it is in, in words.
    """

    state: str
    reason: str


@dataclass(frozen=True)
class Origin:
    """What is exported.

    Attributes
    ----------
    package : verified; its files are at least those that are served.
    manifest, signature : the signed bytes, and what the signer made of them.
    signer_pem : the key that verifies it.
    spec : the pipeline's file as it is applied.
    """

    package: Package
    version: int
    manifest: bytes
    signature: bytes
    signer_pem: bytes
    spec: Mapping[str, Any]
    forced: Forced | None = None


def folder_files(origin: Origin, *, is_container: bool = False) -> dict[str, bytes]:
    """Return every file of an export, by its name in the folder."""
    package = origin.package
    files = {
        name: package.files[name] for name in FROM_PACKAGE if name in package.files
    }
    files |= {
        MANIFEST: origin.manifest,
        SIGNATURE: _json(
            {
                "payloadType": PAYLOAD_TYPE,
                "keyid": package.ref.signer,
                "sig": base64.b64encode(origin.signature).decode(),
            }
        ),
        SIGNER: origin.signer_pem,
        "requirements.txt": REQUIREMENTS.encode(),
        "README.md": _readme(origin, is_container).encode(),
        **_runner_files(),
    }
    if is_container:
        files["Dockerfile"] = DOCKERFILE.encode()
        files[".dockerignore"] = DOCKERIGNORE.encode()
    files[LIST] = _json(_listed(origin, files))
    return dict(sorted(files.items()))


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the digest that stands for a whole export."""
    return hashlib.sha256(files[LIST]).hexdigest()


def _listed(origin: Origin, files: Mapping[str, bytes]) -> dict[str, Any]:
    manifest = json.loads(origin.manifest)
    data = origin.spec["data"]
    forced = origin.forced
    return {
        "format": FORMAT,
        "pipeline": manifest["pipeline"],
        "version": origin.version,
        "task": manifest["task"],
        "target": manifest["target"],
        "package": {
            "digest": origin.package.ref.digest,
            "signer": origin.package.ref.signer,
        },
        "inputs": manifest["inputs"],
        "outputs": manifest["outputs"],
        "classes": manifest["classes"],
        "tolerance": {
            "relative": RELATIVE_TOLERANCE,
            "absolute": ABSOLUTE_TOLERANCE,
        },
        "samples": json.loads(files[SAMPLES_FILE]),
        "home": {
            "id_column": data["id"],
            "time_column": data["time"],
            "private": sorted(data.get("privacy") or {}),
        },
        "forced": None
        if forced is None
        else {"state": forced.state, "reason": forced.reason},
        "files": {
            name: {
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_bytes": len(content),
            }
            for name, content in sorted(files.items())
        },
    }


def _json(content: Any) -> bytes:
    text = json.dumps(
        content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    return f"{text}\n".encode()


def _runner_files() -> dict[str, bytes]:
    """Return the runner: its start, and its modules."""
    place = resources.files("driftloop.cli.edge")
    modules = sorted(
        (each for each in (place / "runner").iterdir() if each.name.endswith(".py")),
        key=lambda each: each.name,
    )
    return {
        RUNNER: (place / "start.py").read_bytes(),
        **{f"{PACKAGE}/{each.name}": each.read_bytes() for each in modules},
    }


def _readme(origin: Origin, is_container: bool) -> str:
    name = f"{origin.package.manifest.pipeline}/{origin.version}"
    text = README.format(
        name=name,
        pipeline=origin.package.manifest.pipeline,
        digest=origin.package.ref.digest,
        signer=origin.package.ref.signer,
        target=origin.package.manifest.target,
    )
    return text + (CONTAINER_README if is_container else "")


README = """\
# {name} at the edge

A model that answers without the installation that made it: it predicts `{target}`. It
needs Python 3.11 or newer, ONNX Runtime and numpy.

```sh
python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
.venv/bin/python runner.py check --signer {signer}
.venv/bin/python runner.py serve
```

`check` verifies every file by its digest and the package by its signature, and lets
the model answer its samples; `serve` and `score` do that first, each time. `serve`
answers at http://127.0.0.1:7003 as the scorer does: `POST /invocations` and
`POST /v2/models/{pipeline}/infer`. `runner.py score IN.csv OUT.csv` answers a file.
With `--home URL` it reports home whenever home is in reach; `runner.py serve --help`
has all options.

Package {digest}, signed by key {signer}.
"""
CONTAINER_README = """
As a container, which answers at the same address:

```sh
docker build -t edge .
docker run --read-only --tmpfs /tmp -v edge-spool:/spool \\
  -p 127.0.0.1:7003:7003 -e DRIFTLOOP_EDGE_WITHOUT_TOKEN=yes edge
```

`DRIFTLOOP_EDGE_WITHOUT_TOKEN` lets whoever reaches the port ask. Where that is not this
machine alone, give `DRIFTLOOP_EDGE_ANSWER_TOKEN_FILE` in its place.
"""
DOCKERFILE = """\
FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin edge \\
 && install --directory --owner=edge --mode=0700 /spool
WORKDIR /edge
COPY requirements.txt ./
RUN pip install --no-cache-dir --requirement requirements.txt
COPY . ./
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \\
    DRIFTLOOP_EDGE_HOST=0.0.0.0 DRIFTLOOP_EDGE_PORT=7003 DRIFTLOOP_EDGE_SPOOL=/spool
USER 10001
VOLUME /spool
EXPOSE 7003
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \\
  CMD ["python", "runner.py", "alive"]
ENTRYPOINT ["python", "runner.py"]
CMD ["serve"]
"""
DOCKERIGNORE = """\
.venv
spool
"""
