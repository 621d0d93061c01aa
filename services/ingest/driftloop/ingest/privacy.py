"""The rules of ``data.privacy``, applied to the rows of a message.

With rules the door is closed to what the pipeline file does not name: a column that
stands neither under features nor under privacy is left out, and a value that is not
what its feature says (text in a number, a category that is none of ``values``) goes on
as :data:`REDACTED`, so that the validator still counts it as wrong and nobody reads it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from driftloop.contracts.moments import microseconds
from driftloop.contracts.pipeline import Feature, PipelineSpec
from driftloop.contracts.privacy import ENCRYPTED, REDACTED, PrivacyRule
from driftloop.ingest.columns import as_text
from driftloop.ingest.formats import Parsed
from driftloop.ingest.keys import PrivacyKeys

MASK = "***"
TRUTHS = frozenset({"true", "false", "1", "0"})

Text = str | None
Texts = list[Text]
"""(n_rows,) values of one column as text."""


class Vault(Protocol):
    """What is drawn at random once and has to be remembered."""

    def tokens(
        self, pipeline: str, column: str, values: Iterable[str]
    ) -> dict[str, str]:
        """Return each value's token; the same value has the same one."""
        ...

    def subject_keys(
        self, pipeline: str, subjects: Iterable[str]
    ) -> dict[str, bytes | None]:
        """Return each subject's key by pseudonym; None: the subject was erased."""
        ...


def masked(value: str, keep_last: int) -> str:
    """Return a value of which only the end is left, never more than half.

    Examples
    --------
    >>> masked("Ada Lovelace", 2), masked("Bo", 2), masked("Ada", 0)
    ('***ce', '***o', '***')
    """
    kept = min(keep_last, len(value) // 2)
    return MASK + (value[-kept:] if kept else "")


def subject_of(keys: PrivacyKeys, pipeline: str, value: str) -> str:
    """Return the pseudonym of a person, or of a value that has a token."""
    return keys.pseudonym(pipeline, "\0subject", value)


def encrypted(value: str, key: bytes, subject: str, pipeline: str, column: str) -> str:
    """Return ``enc1:SUBJECT:HEX``; the same value and key give the same text.

    AES-SIV (RFC 5297) needs no nonce. With a random one a row that is sent again
    would look like a correction of the first.
    """
    bound_to = [f"{pipeline}/{column}".encode()]
    cipher = AESSIV(key).encrypt(value.encode(errors="surrogatepass"), bound_to)
    return f"{ENCRYPTED}:{subject}:{cipher.hex()}"


def treat(
    parsed: Parsed,
    spec: PipelineSpec,
    keys: PrivacyKeys,
    vault: Vault,
    done: frozenset[str] = frozenset(),
) -> Parsed:
    """Return the rows as the pipeline may see them, with all rules applied.

    Parameters
    ----------
    parsed : rows as upstream wrote them.
    done : columns whose rules were applied before (see :meth:`PrivacyKeys.seal`).
    """
    data = spec.data
    rules = {n: r for n, r in data.privacy.items() if n not in done}
    kept = {data.id, data.time, data.target, *data.features}
    kept |= data.attachments.keys() - data.privacy.keys()
    kept |= {name for name, rule in data.privacy.items() if rule.action != "drop"}
    new: dict[str, Texts] = {}
    for name, rule in rules.items():
        if rule.action == "drop" or not _has(parsed.rows, name):
            continue
        values = _texts(parsed.rows, name)
        if rule.action == "encrypt":
            owners = _texts(parsed.rows, str(rule.subject))
            new[name] = _encrypted(values, owners, spec.name, name, keys, vault)
        else:
            new[name] = _mapped(values, _mapping(rule, spec.name, name, keys, vault))
    closed = _checks(spec, skip=data.privacy)
    if isinstance(parsed.rows, list):
        rows: Any = _rows(parsed.rows, kept, new, closed)
    else:
        rows = _table(parsed.rows, kept, new, closed)
    return parsed._replace(rows=rows)


Mapping_ = Callable[[set[str]], dict[str, str]]


def _mapping(
    rule: PrivacyRule, pipeline: str, column: str, keys: PrivacyKeys, vault: Vault
) -> Mapping_:
    match rule.action:
        case "mask":
            return lambda values: {v: masked(v, rule.keep_last) for v in values}
        case "hash":
            return lambda values: {
                v: keys.pseudonym(pipeline, column, v) for v in values
            }
        case _:
            return lambda values: vault.tokens(pipeline, column, values)


def _mapped(values: Texts, mapping: Mapping_) -> Texts:
    """Replace values, each distinct one once; what is empty stays so."""
    found = mapping({value for value in values if value})
    return [found[value] if value else value for value in values]


def _encrypted(
    values: Texts,
    owners: Texts,
    pipeline: str,
    column: str,
    keys: PrivacyKeys,
    vault: Vault,
) -> Texts:
    """Encrypt values; one without a subject, or of an erased one, is left out."""
    pairs = [(v, o) if v and o else None for v, o in zip(values, owners, strict=True)]
    subjects = {pair[1]: "" for pair in pairs if pair}
    subjects = {owner: subject_of(keys, pipeline, owner) for owner in subjects}
    held = vault.subject_keys(pipeline, subjects.values())
    result: Texts = []
    for pair in pairs:
        key = held[subjects[pair[1]]] if pair else None
        if pair is None or key is None:
            result.append(None)
        else:
            subject = subjects[pair[1]]
            result.append(encrypted(pair[0], key, subject, pipeline, column))
    return result


def _has(rows: list[dict[str, Any]] | pa.Table, name: str) -> bool:
    if isinstance(rows, list):
        return any(name in row for row in rows)
    return name in rows.column_names


def _texts(rows: list[dict[str, Any]] | pa.Table, name: str) -> Texts:
    if isinstance(rows, list):
        return [as_text(row.get(name)) for row in rows]
    if name not in rows.column_names:
        return [None] * rows.num_rows
    return [as_text(value) for value in rows.column(name).to_pylist()]


Check = Callable[[Any], bool]


def _checks(spec: PipelineSpec, skip: Mapping[str, PrivacyRule]) -> dict[str, Check]:
    """Return for each column what its values may be at all."""
    data = spec.data
    target = Feature(
        type="number" if spec.task == "regression" else "category", values=data.classes
    )
    features = {**data.features, data.target: target}
    return {
        name: check
        for name, feature in features.items()
        if name not in skip and (check := _check(feature, data.timezone)) is not None
    }


def _check(feature: Feature, timezone: str) -> Check | None:
    if feature.type == "datetime":
        zone = ZoneInfo(timezone)
        return lambda value: value is None or _is_moment(value, zone)
    if feature.type in ("category", "text"):
        if feature.values is None:
            return None
        allowed = {as_text(value) for value in feature.values}
        return lambda value: value is None or as_text(value) in allowed
    return _is_truth if feature.type == "boolean" else _is_number


def _is_moment(value: Any, zone: ZoneInfo) -> bool:
    try:
        microseconds(value, zone)
    except ValueError:
        return False
    return True


def _is_number(value: Any) -> bool:
    if value is None or isinstance(value, int | float):
        return True
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_truth(value: Any) -> bool:
    if value is None or isinstance(value, bool | int | float):
        return True
    return isinstance(value, str) and value.strip().lower() in TRUTHS


def _rows(
    rows: Sequence[dict[str, Any]],
    kept: set[str],
    new: Mapping[str, Texts],
    closed: Mapping[str, Check],
) -> list[dict[str, Any]]:
    result = []
    for at, row in enumerate(rows):
        fresh = {
            name: new[name][at] if name in new else value
            for name, value in row.items()
            if name in kept
        }
        for name in closed.keys() & fresh.keys():
            if not closed[name](fresh[name]):
                fresh[name] = REDACTED
        result.append(fresh)
    return result


def _table(
    table: pa.Table,
    kept: set[str],
    new: Mapping[str, Texts],
    closed: Mapping[str, Check],
) -> pa.Table:
    columns = {}
    for name in table.column_names:
        if name not in kept:
            continue
        column = table.column(name)
        if name in new:
            column = pa.array(new[name], pa.string())
        elif name in closed and not _is_plain(column.type):
            values = column.to_pylist()
            wrong = [not closed[name](value) for value in values]
            if any(wrong):
                texts = [
                    REDACTED if is_wrong else as_text(value)
                    for value, is_wrong in zip(values, wrong, strict=True)
                ]
                column = pa.array(texts, pa.string())
        columns[name] = column
    return pa.table(columns)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether nothing but numbers, truth values or times can be in such a column."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_null(kind)
    )
