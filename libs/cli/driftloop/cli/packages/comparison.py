"""What two packages of one job have in common, and why they differ."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from driftloop.models.formats import MODEL_FILE
from driftloop.models.package import Manifest, payload_of

MANIFEST_FILE = "model.json"
BY_ENVIRONMENT = frozenset({"bom.json", MANIFEST_FILE})
"""Files that list the installed libraries."""
TOLD_PACKAGES = 8
ROUNDING = (
    "the rows, the libraries and the trainer's version are the same; what is left: "
    "numeric libraries choose how they compute by processor and number of threads and "
    "round differently then (reproduce it on the kind of machine, and with the "
    "DRIFTLOOP_TRAINER_THREADS, that trained it), or code was changed without its "
    "version"
)
MACHINE_FACTS = ("device", "gpu", "precision", "processes", "began_on")
"""What a network's parameters say of where it was fitted."""
State = Literal["same", "different", "missing", "new"]


@dataclass(frozen=True)
class FileFate:
    """One file of both packages.

    Attributes
    ----------
    state : of the second package's file: "missing" there, or "new" in it.
    recorded, found : sha256.
    """

    name: str
    state: State
    recorded: str | None
    found: str | None


@dataclass(frozen=True)
class Comparison:
    """How a package and what was made again of its request compare.

    Attributes
    ----------
    reasons : why they differ, in words, the surest first; empty when they do not.
    """

    recorded: str
    found: str
    files: list[FileFate]
    reasons: list[str]

    @property
    def is_same(self) -> bool:
        return self.recorded == self.found

    def as_json(self) -> dict[str, Any]:
        return {
            "same": self.is_same,
            "recorded_digest": self.recorded,
            "found_digest": self.found,
            "files": [asdict(file) for file in self.files],
            "reasons": self.reasons,
        }


def compare(
    digest: str, recorded: Manifest, again: Manifest, files: Mapping[str, bytes]
) -> Comparison:
    """Compare a package with one that was made again.

    Parameters
    ----------
    digest : of the recorded package.
    again, files : the other one, its manifest without the list of files.
    """
    found = hashlib.sha256(payload_of(again, dict(files))).hexdigest()
    fates = [
        _fate(
            name,
            recorded.files[name].sha256 if name in recorded.files else None,
            hashlib.sha256(files[name]).hexdigest() if name in files else None,
        )
        for name in sorted({*recorded.files, *files})
    ]
    fates.append(_fate(MANIFEST_FILE, digest, found))
    changed = {fate.name for fate in fates if fate.state != "same"}
    return Comparison(digest, found, fates, reasons_of(recorded, again, changed))


def _fate(name: str, recorded: str | None, found: str | None) -> FileFate:
    if recorded is None:
        return FileFate(name, "new", recorded, found)
    if found is None:
        return FileFate(name, "missing", recorded, found)
    state: State = "same" if recorded == found else "different"
    return FileFate(name, state, recorded, found)


def reasons_of(recorded: Manifest, again: Manifest, changed: set[str]) -> list[str]:
    """Say in words why files differ, as far as it can be known.

    Parameters
    ----------
    changed : names of the files that differ.
    """
    if not changed:
        return []
    found = [
        *_rows(recorded, again),
        *_code(recorded, again),
        *_libraries(recorded.environment, again.environment),
        *_machines(recorded, again),
    ]
    if MODEL_FILE not in changed:
        found.append("the model itself is the same, byte by byte")
    if changed <= BY_ENVIRONMENT:
        found.append("only what lists libraries and digests differs")
    named = _has_cause(recorded, again)
    if not named and changed - {MANIFEST_FILE}:
        found.append(ROUNDING)
    elif not named:
        found.append(f"this driftloop writes {MANIFEST_FILE} differently")
    return found


def _has_cause(recorded: Manifest, again: Manifest) -> bool:
    return (
        recorded.rows_sha256 != again.rows_sha256
        or recorded.code_version != again.code_version
        or recorded.environment != again.environment
        or machines_of(recorded) != machines_of(again)
    )


def machines_of(manifest: Manifest) -> str:
    """Return where a model's networks were fitted, in words; none: the text is empty.

    Each member of a blend says it for itself.
    """
    members = [manifest.parameters, *manifest.parameters.get("members", [])]
    told = [
        ", ".join(
            f"{name.replace('_', ' ')} {member[name]}"
            for name in MACHINE_FACTS
            if name in member
        )
        for member in members
        if "device" in member
    ]
    return "; ".join(dict.fromkeys(told))


def _machines(recorded: Manifest, again: Manifest) -> list[str]:
    before, now = machines_of(recorded), machines_of(again)
    if before == now or not before or not now:
        return []
    return [
        f"it was trained elsewhere: {before}; here: {now}. Only the same kind of "
        "device, precision and number of processes round alike "
        "(DRIFTLOOP_TRAINER_DEVICE, train.networks.precision, "
        "DRIFTLOOP_TRAINER_PROCESSES); a fit that began in one place and went on in "
        "another cannot be made again to the byte"
    ]


def _rows(recorded: Manifest, again: Manifest) -> list[str]:
    if recorded.rows_sha256 == again.rows_sha256:
        return []
    tables = [recorded.dataset.observations, recorded.dataset.labels]
    named = " and ".join(f"{t.uri} version {t.version}" for t in tables if t)
    before, now = _row_count(recorded), _row_count(again)
    counted = f"{now} rows" if now == before else f"{now} rows where {before} were"
    return [
        f"the rows are not those that the model learned from and was judged on "
        f"({counted}): what {named} holds was changed since"
    ]


def _row_count(manifest: Manifest) -> int:
    """Return how many rows were learned or judged on; of a refit, both are the same."""
    if manifest.learned_span is not None:
        return manifest.train_row_count
    return manifest.train_row_count + manifest.evaluation.holdout_row_count


def _code(recorded: Manifest, again: Manifest) -> list[str]:
    if recorded.code_version == again.code_version:
        return []
    return [
        f"the trainer is {again.code_version}; the package was made by "
        f"{recorded.code_version}"
    ]


def _libraries(recorded: list[str], again: list[str]) -> list[str]:
    """Return one sentence about the libraries that differ, or none.

    >>> _libraries(["a==1", "b==1", "c==1"], ["a==1", "b==2", "d==1"])
    ['the libraries differ: b 1 became 2; c 1 is not here; d 1 is new']
    """
    before, now = _versions(recorded), _versions(again)
    told = [
        f"{name} {before[name]} became {now[name]}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
    told += [f"{n} {before[n]} is not here" for n in sorted(before.keys() - now.keys())]
    told += [f"{n} {now[n]} is new" for n in sorted(now.keys() - before.keys())]
    if not told:
        return []
    rest = len(told) - TOLD_PACKAGES
    more = [f"and {rest} more"] if rest > 0 else []
    return [f"the libraries differ: {'; '.join([*told[:TOLD_PACKAGES], *more])}"]


def _versions(lines: list[str]) -> dict[str, str]:
    """Return all versions of each name (some environments have a name twice)."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, version = line.partition("==")
        found[name] = f"{found[name]} and {version}" if name in found else version
    return found
