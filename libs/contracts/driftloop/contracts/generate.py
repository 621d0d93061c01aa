"""Write what is derived from the contracts: ``python -m driftloop.contracts.generate``.

JSON Schema snapshots, those of our OpenLineage facets, the AsyncAPI document,
``docs/chain.md`` and ``docs/pipeline.md``. With ``--check``
nothing is written and a difference is an error. A change that breaks readers of a
published schema is refused in both cases, with the services that it breaks.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from driftloop.contracts.asyncapi import document
from driftloop.contracts.compatibility import breaches, report
from driftloop.contracts.openlineage import FACETS, Facet, schema_of_facet
from driftloop.contracts.picture import chain_page
from driftloop.contracts.pipeline_page import pipeline_page
from driftloop.contracts.topics import TOPICS, Topic

DISTRIBUTION = Path("libs/contracts")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMMAND = "python -m driftloop.contracts.generate"


def schema_of(topic: Topic) -> dict[str, Any]:
    """Return the JSON Schema of a topic's event as published."""
    event = topic.event
    return {
        "$schema": DIALECT,
        "$id": f"urn:driftloop:{topic.name}:v{event.major}",
        **event.model_json_schema(),
    }


def snapshot_path(topic: Topic) -> Path:
    return DISTRIBUTION / "schemas" / f"{topic.name}.v{topic.event.major}.json"


def facet_path(facet: type[Facet]) -> Path:
    return DISTRIBUTION / "openlineage" / f"{facet.short_name}.v{facet.major}.json"


def read_examples(root: Path) -> dict[str, dict[str, Any]]:
    """Return the example event of each topic, by topic name."""
    folder = root / DISTRIBUTION / "examples"
    return {p.stem: json.loads(p.read_text("utf-8")) for p in folder.glob("*.json")}


def generated(root: Path) -> dict[Path, str]:
    """Return every generated file's path below ``root`` and its content."""
    files = {
        snapshot_path(topic): json.dumps(schema_of(topic), indent=2, ensure_ascii=False)
        + "\n"
        for topic in TOPICS
    }
    for facet in FACETS:
        schema = json.dumps(schema_of_facet(facet), indent=2, ensure_ascii=False)
        files[facet_path(facet)] = f"{schema}\n"
    api = document(version("driftloop-contracts"), read_examples(root))
    files[DISTRIBUTION / "asyncapi.yaml"] = yaml.safe_dump(
        api, sort_keys=False, allow_unicode=True, width=88
    )
    files[Path("docs/chain.md")] = chain_page()
    files[Path("docs/pipeline.md")] = pipeline_page()
    return files


def breaking_changes(root: Path) -> list[str]:
    """Return a report for each topic whose published schema would be broken."""
    reports = []
    for topic in TOPICS:
        path = root / snapshot_path(topic)
        if path.exists():
            published = json.loads(path.read_text("utf-8"))
            if found := breaches(published, schema_of(topic)):
                reports.append(report(topic, found))
    reports += [f"{path.name}: its topic is gone" for path in _orphans(root)]
    return reports


def _orphans(root: Path) -> list[Path]:
    """Return published schemas, below ``root``, of topics that are no more."""
    current = {topic.name for topic in TOPICS}
    snapshots = sorted((root / DISTRIBUTION / "schemas").glob("*.json"))
    return [
        p.relative_to(root) for p in snapshots if p.name.split(".")[0] not in current
    ]


def stale_files(root: Path) -> list[Path]:
    """Return generated files that differ from what is on disk, or have no topic."""
    files = generated(root)
    stale = [
        path
        for path, text in files.items()
        if not (root / path).exists() or (root / path).read_text("utf-8") != text
    ]
    return stale + _orphans(root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout")
    parser.add_argument(
        "--unpublished",
        action="store_true",
        help="nobody has messages under these schemas yet: break them",
    )
    options = parser.parse_args(arguments)
    root: Path = options.root
    if not (root / DISTRIBUTION / "examples").is_dir():
        parser.error(f"{root} is not a checkout of driftloop; see --root")
    if not options.unpublished and (reports := breaking_changes(root)):
        sys.stderr.write("\n".join(reports) + "\n")
        return 1
    stale = stale_files(root)
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path} is not what the contracts say; run {COMMAND}\n")
        return 1 if stale else 0
    files = generated(root)
    for path in stale:
        target = root / path
        if path in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(files[path], encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")
        else:
            target.unlink()
            sys.stdout.write(f"removed {path}: its topic is gone\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
