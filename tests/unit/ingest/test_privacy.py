"""Privacy rules: what goes on of a row, and what is told of one that cannot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from driftloop.contracts.events import (
    BatchIngested,
    ErasureRequested,
    PipelineApplied,
    SubjectErased,
)
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline
from driftloop.contracts.privacy import REDACTED
from driftloop.ingest.formats import Parsed, parse
from driftloop.ingest.handlers import HANDLERS, IngestDeps, Patience
from driftloop.ingest.keys import PrivacyKeyError, PrivacyKeys, UnreadableError
from driftloop.ingest.keys import open_keys as keys_of
from driftloop.ingest.privacy import encrypted, subject_of, treat
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.tables import TABLES
from driftloop.ingest.vault import DatabaseVault
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import without_values
from driftloop.runtime.handlers import DeadLetter
from driftloop.runtime.state import StateView
from pydantic import SecretStr
from sqlmodel import Session

from tests.unit.ingest.door import APPLIED as BIKES
from tests.unit.ingest.door import KEYS, message, row
from tests.unit.ingest.private import (
    APPLIED,
    CUSTOMER,
    PHONE,
    SECRETS,
    SPEC,
    person,
    pipelines,
)

OBSERVATIONS, LABELS, _, on_erasure_requested = HANDLERS


@pytest.fixture
def session() -> Iterator[Session]:
    engine = open_database("sqlite://", TABLES)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def vault(session: Session) -> DatabaseVault:
    return DatabaseVault(session, KEYS)


def treated(vault: DatabaseVault, *rows: dict[str, object]) -> list[dict[str, Any]]:
    result = treat(Parsed(list(rows), range(1, len(rows) + 1)), SPEC, KEYS, vault).rows
    assert isinstance(result, list)
    return result


def arrow(rows: Iterable[dict[str, object]]) -> bytes:
    table = pa.Table.from_pylist(list(rows))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    result: bytes = sink.getvalue().to_pybytes()
    return result


def csv(rows: list[dict[str, object]]) -> bytes:
    lines = [",".join(rows[0])]
    lines += [",".join(str(value) for value in each.values()) for each in rows]
    return "\n".join([*lines, ""]).encode()


# ── rules ───────────────────────────────────────────────────────────────────


def test_each_rule_does_what_it_says(vault: DatabaseVault) -> None:
    (found,) = treated(vault, person(1))
    assert found["id"] == KEYS.pseudonym("shop", "id", "order-of-ada-1")
    assert "email" not in found
    assert "address" not in found, "a column that nobody named"
    assert found["name"] == "***ce"
    assert found["customer_id"] == KEYS.pseudonym("shop", "customer_id", CUSTOMER)
    assert found["phone"].startswith("tok_")
    assert found["notes"].startswith("enc1:")
    assert (found["age"], found["plan"], found["is_new"]) == (36, "pro", True)
    text = json.dumps(found)
    assert not [secret for secret in SECRETS if secret in text]


def test_the_same_value_is_the_same_in_every_form(vault: DatabaseVault) -> None:
    rows = [person(n) for n in range(3)]
    for each in rows:
        del each["is_new"]
    forms = [
        treat(parse(data, kind), SPEC, KEYS, vault).rows
        for data, kind in (
            (orjson.dumps(rows), "application/json"),
            (arrow(rows), "application/vnd.apache.arrow.stream"),
            (csv(rows), "text/csv"),
        )
    ]
    names = ("id", "name", "customer_id", "phone", "notes", "region")
    seen = [[[each[name] for name in names] for each in _dicts(rows)] for rows in forms]
    assert seen[0] == seen[1] == seen[2]
    assert len({each[0] for each in seen[0]}) == 3, "control: ids differ"


def _dicts(rows: Any) -> list[dict[str, Any]]:
    return rows if isinstance(rows, list) else rows.to_pylist()


def test_hashes_differ_by_key_pipeline_and_column() -> None:
    other = PrivacyKeys.from_secret(b"another secret, of another place")
    hashes = {
        KEYS.pseudonym("shop", "phone", "1"),
        KEYS.pseudonym("shop", "name", "1"),
        KEYS.pseudonym("store", "phone", "1"),
        other.pseudonym("shop", "phone", "1"),
    }
    assert len(hashes) == 4


def test_what_is_empty_stays_empty(vault: DatabaseVault) -> None:
    nobody: dict[str, object] = {
        "event_time": "2024-05-01", "id": "", "phone": None, "notes": "x",
    }  # fmt: skip
    (found,) = treated(vault, nobody)
    assert (found["id"], found["phone"]) == ("", None)
    assert found["notes"] is None, "nobody's: there is no key to encrypt it with"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("age", "call ada"), ("age", {"who": "ada"}), ("age", ["ada"]),
        ("plan", "ada"), ("plan", 7), ("is_new", "ada"), ("bought", "ada"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_redacted(
    vault: DatabaseVault, column: str, value: object
) -> None:
    (found,) = treated(vault, person(1, **{column: value}))
    assert found[column] == REDACTED


def test_a_moment_stays_and_what_is_none_is_redacted(vault: DatabaseVault) -> None:
    spec = parse_pipeline(
        "{name: shop, task: binary, data: {target: bought, privacy: {who: drop}, "
        "features: {opened: {type: datetime}}}}"
    )
    given = ["2011-01-01", None, "call ada", 1293840000, "0001-01-01T00:00:00+14:00"]
    data = orjson.dumps([{"opened": one, "who": "ada"} for one in given])
    for body in (data, orjson.dumps([{"opened": "2011-01-01"}])):
        rows = treat(parse(body, "application/json"), spec, KEYS, vault).rows
        found = [row["opened"] for row in rows]
        assert found == [*given[:2], *[REDACTED] * 3][: len(found)]
    stamps = arrow([{"opened": datetime(2011, 1, 1, tzinfo=UTC)}])
    kind = "application/vnd.apache.arrow.stream"
    table = treat(parse(stamps, kind), spec, KEYS, vault).rows
    assert pa.types.is_timestamp(table["opened"].type)


def test_wrong_values_in_arrow_are_redacted_and_right_ones_stay(
    vault: DatabaseVault,
) -> None:
    rows = [person(1, age="36"), person(2, age="call ada")]
    data = arrow(rows)
    table = treat(
        parse(data, "application/vnd.apache.arrow.stream"), SPEC, KEYS, vault
    ).rows
    assert table["age"].to_pylist() == ["36", REDACTED]


@pytest.mark.parametrize("value", ["36", " 36.5 ", 36, 36.5, None, "nan"])
def test_right_values_stay(vault: DatabaseVault, value: object) -> None:
    (found,) = treated(vault, person(1, age=value))
    assert found["age"] == value


# ── tokens, subjects ────────────────────────────────────────────────────────


def test_a_token_is_random_kept_and_can_be_read(vault: DatabaseVault) -> None:
    one = vault.tokens("shop", "phone", ["1", "2"])
    assert vault.tokens("shop", "phone", ["2", "3"])["2"] == one["2"]
    assert vault.tokens("shop", "fax", ["2"])["2"] != one["2"]
    assert vault.value_of("shop", one["1"]) == ("phone", "1")
    assert vault.value_of("store", one["1"]) is None


def test_the_database_holds_no_value(session: Session, vault: DatabaseVault) -> None:
    treated(vault, person(1))
    session.flush()
    dump = "\n".join(
        str(each)
        for name in ("ingest_token", "ingest_subject_key")
        for each in session.connection().exec_driver_sql(f"SELECT * FROM {name}")  # noqa: S608 - of our own
    )
    assert "tok_" in dump
    assert not [secret for secret in SECRETS if secret in dump]
    other = PrivacyKeys.from_secret(b"another secret, of another place")
    token = treated(vault, person(1))[0]["phone"]
    with pytest.raises(UnreadableError):
        DatabaseVault(session, other).value_of("shop", token)


def test_erasure_ends_reading_and_later_rows_hold_nothing(
    session: Session, vault: DatabaseVault
) -> None:
    (before,) = treated(vault, person(1))
    subject = subject_of(KEYS, "shop", CUSTOMER)
    key = vault.known_key("shop", subject)
    assert key is not None
    text = encrypted("asked for the engine", key, subject, "shop", "notes")
    assert before["notes"] == text
    plain = AESSIV(key).decrypt(bytes.fromhex(text.rpartition(":")[2]), [b"shop/notes"])
    assert plain == b"asked for the engine"
    deps = IngestDeps(session, pipelines(), Patience(0), KEYS)
    asked = ErasureRequested(
        pipeline="shop", subject=subject, requested_by="ben", reason="ticket 1"
    )

    assert list(on_erasure_requested(asked, deps)) == [  # type: ignore[operator]  # an event's handler
        SubjectErased(
            pipeline="shop", subject=subject, key_count=1, token_count=0,
            requested_by="ben",
        )
    ]  # fmt: skip

    assert vault.known_key("shop", subject) is None
    later, other = treated(vault, person(2), person(3, customer_id="9"))
    assert later["notes"] is None
    assert other["notes"].startswith("enc1:"), "control: others are not touched"
    (again,) = on_erasure_requested(asked, deps)  # type: ignore[operator]  # as above
    assert again.key_count == 0


def test_erasing_someone_unknown_is_no_error_and_deletes_tokens_of_the_id(
    session: Session, vault: DatabaseVault
) -> None:
    token = vault.tokens("shop", "phone", [PHONE])[PHONE]
    assert vault.erase("shop", subject_of(KEYS, "shop", "nobody")) == (1, [])
    assert vault.value_of("shop", token) is not None
    key_count, tokens = vault.erase("shop", subject_of(KEYS, "shop", PHONE))
    assert (key_count, len(tokens)) == (1, 1)
    assert vault.value_of("shop", token) is None


# ── the topic ───────────────────────────────────────────────────────────────


def handle(
    session: Session, *messages: Any, views: StateView[PipelineApplied] | None = None
) -> tuple[list[BatchIngested], list[DeadLetter]]:
    deps = IngestDeps(session, views or pipelines(), Patience(0), KEYS)
    outputs = list(OBSERVATIONS.function(messages, deps))  # type: ignore[union-attr]  # a chunk
    events = [each for each in outputs if isinstance(each, BatchIngested)]
    return events, [each for each in outputs if isinstance(each, DeadLetter)]


def test_rules_hold_on_the_topic_and_repeats_are_repeats(session: Session) -> None:
    one = message(person(1), key="shop/ada", ce_id="ada", ce_chainid="ada-chain")
    (event,), _ = handle(session, one)
    text = json.dumps(event.rows.to_pylist(), default=str) + event.model_dump_json()
    assert not [secret for secret in SECRETS if secret in text]
    assert event.shard == "upstream", "the key is not read: it may be a person's id"
    assert event.follows is not None
    assert "ada" not in event.follows.id + event.follows.chain.id
    extra = json.loads(event.rows["extra"][0].as_py())
    assert set(extra) == {"customer_id", "name", "notes", "phone"}
    assert handle(session, one) == ([], [])


def test_sealed_rows_are_not_treated_twice(session: Session) -> None:
    vault = DatabaseVault(session, KEYS)
    data = orjson.dumps(treated(vault, person(1)))
    columns = sorted(SPEC.data.privacy)
    seal = KEYS.seal("observation-arrived", "shop", columns, data)
    headers = {"ce_privacycolumns": "\x1f".join(columns), "ce_source": "/upstream/till"}

    (event,), _ = handle(
        session, message(data, key="shop", ce_privacyseal=seal, **headers)
    )
    (forged,), _ = handle(
        session, message(data, 1, key="shop", ce_privacyseal="0" * 64, **headers)
    )

    hashed = KEYS.pseudonym("shop", "id", "order-of-ada-1")
    assert event.rows["id"].to_pylist() == [hashed]
    assert event.shard == "till"
    twice = KEYS.pseudonym("shop", "id", hashed)
    assert forged.rows["id"].to_pylist() == [twice], "nobody else can say it was done"


BAD = {
    "json": (b'{"id": "ada@example.org', {}, "broken JSON"),
    "time": (
        orjson.dumps(person(1, event_time="ada@example.org")), {},
        "event_time: is no time; send ISO 8601 text such as 2011-01-01T00:00:00Z",
    ),
    "id": (orjson.dumps(person(1, event_time=None)), {},
           "event_time: missing; each row needs its event time"),
    "csv": (b"id,event_time\nada@example.org,Lovelace,3\n",
            {"content__type": "text/csv"}, "cells, the header has"),
    "header": (b'["ada@example.org"]', {}, "not a JSON object"),
    "type": (b"x", {"content__type": "ada@example.org"}, "content type"),
    "twice": (b"ada,ada\n1,2\n", {"content__type": "text/csv"}, "is there twice"),
    "structured": (b'"ada"', {"content__type": "application/cloudevents+json"},
                   "not a structured CloudEvent"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_dead_letter_says_what_is_wrong_and_nothing_else(
    session: Session, name: str
) -> None:
    data, headers, reason = BAD[name]
    bad = message(data, 7, key="shop/ada", ce_id="ada", x_user="ada", **headers)
    events, letters = handle(session, bad)
    assert not events
    (letter,) = letters
    deps = IngestDeps(session, pipelines(), Patience(0), KEYS)
    told = deps.told(letter.message)
    text = f"{told!r} {without_values(letter.error)}"
    assert "ada" not in text
    assert "Lovelace" not in text
    assert (told.value, told.topic, told.offset) == (None, "observation-arrived", 7)
    assert str(without_values(letter.error)) == reason


def test_without_rules_a_dead_letter_is_kept_whole(session: Session) -> None:
    """The negative control: only rules take something away."""
    views = StateView(PipelineApplied, {"bikes": BIKES, "shop": APPLIED})
    broken = message(b'{"id": "ada', key="bikes/ada")
    _, (letter,) = handle(session, broken, views=views)
    deps = IngestDeps(session, views, Patience(0), KEYS)
    assert deps.told(letter.message) is letter.message is broken
    (event,), _ = handle(session, message(row(1), key="bikes/ada"), views=views)
    assert event.shard == "ada"


def test_a_message_of_no_known_pipeline_is_private_once_one_has_rules(
    session: Session,
) -> None:
    stray = message(b"ada", key="@")
    both = StateView(PipelineApplied, {"bikes": BIKES, "shop": APPLIED})
    for views, is_private in (
        (both, True),
        (StateView(PipelineApplied, {"bikes": BIKES}), False),
    ):
        deps = IngestDeps(session, views, Patience(0), KEYS)
        assert (deps.told(stray).value is None) is is_private


# ── the pipeline file, the key ──────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("{a: encrypt}", "encrypt needs subject"),
        ("{a: {action: hash, subject: b}}", "subject belongs to encrypt"),
        ("{a: {action: hash, keep_last: 2}}", "keep_last belongs to mask"),
        ("{y: hash}", "the time and the target have to stay"),
        ("{event_time: drop}", "the time and the target have to stay"),
        ("{id: drop}", "labels find their rows by the id"),
        ("{x: hash}", "remove it from features, or make it a category"),
        ("{sky: drop}", "remove it from features"),
        ("{a: shred}", "Input should be 'drop', 'mask'"),
        ("{a: {action: mask, keep: 2}}", "did you mean 'keep_last'?"),
    ],
)
def test_rules_that_cannot_work_are_refused(rules: str, problem: str) -> None:
    text = (
        "{name: p, task: regression, data: {target: y, features: "
        f"{{x: {{}}, sky: {{type: category}}}}, privacy: {rules}}}}}"
    )
    with pytest.raises(PipelineFileError) as refusal:
        parse_pipeline(text)
    assert problem in str(refusal.value)


def test_rules_need_named_features() -> None:
    with pytest.raises(PipelineFileError, match="privacy needs features"):
        parse_pipeline(
            "{name: p, task: regression, data: {target: y, privacy: {a: drop}}}"
        )


def test_the_key_is_drawn_once_and_read_by_the_owner_only(tmp_path: Any) -> None:
    settings = IngestSettings(home=tmp_path)
    keys = keys_of(settings)
    path = tmp_path / "secrets" / "privacy-key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys_of(settings) == keys
    path.chmod(0o644)
    with pytest.raises(PrivacyKeyError, match="chmod 600"):
        keys_of(settings)
    with pytest.raises(PrivacyKeyError, match="less than 32 characters"):
        keys_of(IngestSettings(privacy_key=SecretStr("short")))
