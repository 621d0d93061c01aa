"""What is true of a pipeline's versions, computed from what happened to them.

Facts go in (registrations, decisions, changes of what is served), standings, aliases
and history come out. Topics have no order among each other, so nothing here depends
on which topic was read first: the same facts give the same ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from driftloop.contracts.approval import in_words, seats_of
from driftloop.contracts.quorum import is_same_person, open_seats

State = Literal[
    "registered",
    "rejected",
    "awaiting_approval",
    "expired",
    "approved",
    "deployed",
    "superseded",
    "rolled_back",
]

MOVES: dict[State, frozenset[State]] = {
    "registered": frozenset({"rejected", "awaiting_approval", "approved"}),
    "awaiting_approval": frozenset({"approved", "rejected", "expired"}),
    "expired": frozenset({"awaiting_approval"}),
    "approved": frozenset({"deployed", "rolled_back", "superseded"}),
    "deployed": frozenset({"superseded", "rolled_back"}),
    "superseded": frozenset({"deployed"}),
    "rolled_back": frozenset({"deployed"}),
    "rejected": frozenset(),
}
"""The allowed moves of a version. The last two to ``deployed`` are a rollback that
brings an earlier version back; people may be asked again about an expired one."""

ASK_AGAIN = (
    "ask again: driftloop request-approval PIPELINE/VERSION, or POST …/request-approval"
)
ON_ITS_WAY: frozenset[State] = frozenset({"awaiting_approval", "approved"})
REPLACEABLE: frozenset[State] = frozenset({"approved", "deployed"})
ALIASES = ("champion", "previous", "candidate")


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """How many people of which role have to say yes, and by when.

    Attributes
    ----------
    expires_at : what is said then or later does not count; None: there is no end.
    remind_at : when people are reminded, in order.
    also : further roles, and how many of each have to say yes too.
    """

    role: str
    people: int
    expires_at: datetime | None = None
    remind_at: tuple[datetime, ...] = ()
    also: Mapping[str, int] = field(default_factory=dict)

    @property
    def seats(self) -> dict[str, int]:
        """How many of each role have to say yes."""
        return seats_of(self)

    @property
    def everybody(self) -> int:
        """How many people have to say yes."""
        return sum(self.seats.values())


@dataclass(frozen=True, slots=True)
class Registration:
    """A version exists.

    Attributes
    ----------
    failures : what the gate found against it; empty: it passed.
    rule : None: a version that passes is approved by the gate.
    author : who asked for the training, if a person did.
    """

    version: int
    event_id: str
    at: datetime
    digest: str
    failures: tuple[str, ...]
    rule: ApprovalRule | None
    author: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A person decided.

    Attributes
    ----------
    request : which one about the version they answered.
    roles : of those asked for, which they have; empty: the rule's first.
    """

    version: int
    event_id: str
    at: datetime
    decision: Literal["approve", "reject"]
    by: str
    reason: str
    digest: str
    request: int = 1
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Expiry:
    """A request was not decided in time."""

    version: int
    event_id: str
    at: datetime
    request: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """A person asked again; ``request`` is the one that began."""

    version: int
    event_id: str
    at: datetime
    request: int
    by: str
    reason: str
    digest: str
    rule: ApprovalRule


ServingKind = Literal["deployed", "rolled_back", "stopped"]


@dataclass(frozen=True, slots=True)
class ServingChange:
    """A version went into service, or out of it.

    Attributes
    ----------
    kind : stopped: it was taken back before production, where nothing changes.
    generation : of serving; gives changes their order.
    restored : version that answers after a rollback; None: no version does.
    """

    version: int
    event_id: str
    at: datetime
    generation: int
    kind: ServingKind
    restored: int | None = None
    reason: str = ""

    @property
    def order(self) -> tuple[int, bool, datetime, str]:
        """A rollback of a generation comes after its deployment."""
        return (self.generation, self.kind == "rolled_back", self.at, self.event_id)


Fact = Registration | Decision | Expiry | Renewal | ServingChange


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a version is, and who decided.

    Attributes
    ----------
    rule : of the request in hand.
    reasons : why it was rejected, or is expired.
    decided_by : people whose decisions counted in this request, in their order.
    spoke : the roles of each of them.
    request : how often people were asked.
    ignored : event id of each decision that did not count, with the reason.
    """

    version: int
    state: State
    rule: ApprovalRule | None = None
    reasons: tuple[str, ...] = ()
    decided_by: tuple[str, ...] = ()
    spoke: tuple[frozenset[str], ...] = ()
    request: int = 1
    ignored: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, int]:
        """How many of which role still have to say yes; none where nobody is asked."""
        if self.rule is None or self.state != "awaiting_approval":
            return {}
        return dict(open_seats(self.rule.seats, self.spoke))

    def replaced(self, state: State) -> "Standing":
        return replace(self, state=state)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history: a version moved, or an alias did.

    Attributes
    ----------
    subject : ``state``, ``decision`` or ``alias:<name>``.
    before, after : states, or versions as text; ``None``: there was none.
    """

    at: datetime
    event_id: str
    version: int | None
    subject: str
    before: str | None
    after: str | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that follows from a pipeline's facts."""

    standings: dict[int, Standing]
    aliases: dict[str, int]
    history: tuple[Entry, ...]


def is_allowed(before: State, after: State) -> bool:
    """Whether a version may move so.

    >>> is_allowed("awaiting_approval", "approved"), is_allowed("rejected", "approved")
    (True, False)
    """
    return after in MOVES[before]


def objection(
    registration: Registration, standing: Standing, decision: Decision
) -> str | None:
    """Return why a decision does not count; None: it does.

    Asked by REST before a decision is published and by the ledger when it is read.
    """
    name = f"version {registration.version}"
    if decision.digest != registration.digest:
        return (
            f"the decision is about package {decision.digest[:12]}…, "
            f"{name} is package {registration.digest[:12]}…"
        )
    problem = _closed(name, standing, decision)
    if problem:
        return problem
    if any(is_same_person(decision.by, name) for name in standing.decided_by):
        return f"{decision.by} has decided about {name} already"
    author = registration.author
    is_yes, by = decision.decision == "approve", decision.by
    if is_yes and author and is_same_person(by, author):
        return f"{by} asked for the training of {name}; another must approve"
    return _surplus(name, standing, decision)


def _surplus(name: str, standing: Standing, decision: Decision) -> str | None:
    """Return why one more yes is of no use; None: it is of use."""
    rule = standing.rule
    if rule is None or decision.decision == "reject":
        return None
    spoke = (*standing.spoke, _speaks_for(rule, decision))
    missing = open_seats(rule.seats, spoke)
    if rule.everybody - sum(missing.values()) == len(spoke):
        return None
    roles = " and ".join(sorted(spoke[-1]))
    return (
        f"{name} needs no other {roles}: it waits for {in_words(missing)}, and "
        f"{decision.by} decides as {roles}"
    )


def _speaks_for(rule: ApprovalRule, decision: Decision) -> frozenset[str]:
    return decision.roles or frozenset({rule.role})


def _closed(name: str, standing: Standing, decision: Decision) -> str | None:
    """Return why a request takes no decision; None: it is open."""
    if standing.state == "expired" or _is_late(standing.rule, decision):
        return f"{name} waits for no decision: {_expired(standing)}; {ASK_AGAIN}"
    if standing.state != "awaiting_approval":
        return f"{name} waits for no decision: it is {standing.state}"
    if decision.request != standing.request:
        return f"{name} waits for an answer to request {standing.request} by now"
    return None


def _is_late(rule: ApprovalRule | None, decision: Decision) -> bool:
    if rule is None or rule.expires_at is None:
        return False
    return decision.at >= rule.expires_at


def _expired(standing: Standing) -> str:
    rule = standing.rule
    if rule is None or rule.expires_at is None:
        return "the approval expired"
    return (
        f"the approval expired at {rule.expires_at:%Y-%m-%d %H:%M:%S} UTC with "
        f"{len(standing.decided_by)} of {in_words(rule.seats)}"
    )


def renewal_objection(registration: Registration, standing: Standing) -> str | None:
    """Return why people cannot be asked again; None: they can."""
    if standing.state == "expired":
        return None
    name = f"version {registration.version}"
    if standing.state == "awaiting_approval":
        return f"{name} waits for approval already"
    return f"{name} is {standing.state}; only an expired request can be renewed"


def rollback_objection(book: Ledger, to_version: int | None) -> str | None:
    """Return why a rollback is not possible; None: it is worth asking for.

    A version on its way may be taken back; whether one is, the deployer knows.
    """
    approved = any(s.state == "approved" for s in book.standings.values())
    if to_version is None:
        if "previous" in book.aliases or approved:
            return None
        return "there is no version before the one in service"
    standing = book.standings.get(to_version)
    was_served: frozenset[State] = frozenset({"deployed", "superseded", "rolled_back"})
    if standing is None or standing.state not in was_served:
        return f"version {to_version} was never in service"
    if book.aliases.get("champion") == to_version and not approved:
        return f"version {to_version} is in service already"
    return None


def steering_objection(book: Ledger, action: str, version: int) -> str | None:
    """Return why a rollout cannot be steered so; None: it is worth asking for.

    Which version is on its way, and at which step, the deployer knows.
    """
    standing = book.standings.get(version)
    state = standing.state if standing else "unknown"
    if state == "approved" or (state == "deployed" and action != "promote"):
        return None
    return f"version {version} is {state}: there is no rollout to {action}"


class _Book:
    """The ledger in the making: applies moves and writes them down."""

    def __init__(self) -> None:
        self.standings: dict[int, Standing] = {}
        self.entries: list[Entry] = []
        self.replaceable: set[int] = set()
        """Versions that a deployment may supersede."""

    def move(self, version: int, to: State, fact: Fact, detail: str = "") -> None:
        """Move a version if the table allows it; else write down that it did not."""
        standing = self.standings.get(version)
        if standing is None or standing.state == to:
            return
        allowed = is_allowed(standing.state, to)
        note = detail if allowed else f"not a move of the table, not made: {detail}"
        self.note(fact, version, "state", standing.state, to, note)
        if allowed:
            self.standings[version] = standing.replaced(to)
            if to in REPLACEABLE:
                self.replaceable.add(version)
            else:
                self.replaceable.discard(version)

    def note(
        self,
        fact: Fact,
        version: int | None,
        subject: str,
        before: str | None,
        after: str | None,
        detail: str = "",
    ) -> None:
        self.entries.append(
            Entry(fact.at, fact.event_id, version, subject, before, after, detail)
        )


def open_ledger(
    registrations: Iterable[Registration],
    decisions: Sequence[Decision] = (),
    changes: Iterable[ServingChange] = (),
    expiries: Iterable[Expiry] = (),
    renewals: Iterable[Renewal] = (),
) -> Ledger:
    """Compute the ledger of one pipeline.

    Parameters
    ----------
    decisions : in the order of their topic's partition.
    """
    book = _Book()
    ended = {(fact.version, fact.request): fact for fact in expiries}
    renewed = {(fact.version, fact.request): fact for fact in renewals}
    for registration in sorted(registrations, key=lambda r: r.version):
        _register(book, registration)
        about = [d for d in decisions if d.version == registration.version]
        _ask(book, registration, about, ended, renewed)
    serving = _serve(book, sorted(changes, key=lambda c: c.order))
    aliases = {
        "champion": serving[-1] if serving else None,
        "previous": serving[-2] if len(serving) > 1 else None,
        "candidate": max(
            (v for v, s in book.standings.items() if s.state in ON_ITS_WAY),
            default=None,
        ),
    }
    return Ledger(
        book.standings,
        {name: version for name, version in aliases.items() if version is not None},
        tuple(sorted(book.entries, key=lambda entry: entry.at)),
    )


def _register(book: _Book, fact: Registration) -> None:
    version = fact.version
    book.standings[version] = Standing(version, "registered", fact.rule, fact.failures)
    book.note(fact, version, "state", None, "registered")
    if fact.failures:
        book.move(version, "rejected", fact, "; ".join(fact.failures))
    elif fact.rule is None:
        book.move(version, "approved", fact, "the gate passed")
    else:
        detail = f"waits for {in_words(fact.rule.seats)}"
        book.move(version, "awaiting_approval", fact, detail)


def _ask(
    book: _Book,
    registration: Registration,
    decisions: Sequence[Decision],
    ended: Mapping[tuple[int, int], Expiry],
    renewed: Mapping[tuple[int, int], Renewal],
) -> None:
    """Go through the requests about a version, each with its answers and its end.

    What counts in a request is told by the times in the facts, so it does not matter
    whether its end or its last answer was read first.
    """
    version, request = registration.version, 1
    while True:
        for decision in decisions:
            if decision.request == request:
                _decide(book, registration, decision)
        expiry = ended.get((version, request))
        if expiry and book.standings[version].state == "awaiting_approval":
            reason = _expired(book.standings[version])
            expired = replace(book.standings[version], reasons=(reason,))
            book.standings[version] = expired
            book.move(version, "expired", expiry, reason)
        request += 1
        renewal = renewed.get((version, request))
        if renewal is None or book.standings[version].state != "expired":
            break
        book.standings[version] = replace(
            book.standings[version],
            rule=renewal.rule,
            request=request,
            reasons=(),
            decided_by=(),
            spoke=(),
        )
        detail = f"{renewal.by} asked again: {renewal.reason}"
        book.move(version, "awaiting_approval", renewal, detail)
    for decision in decisions:
        if decision.request >= request:
            _decide(book, registration, decision)


def _decide(book: _Book, registration: Registration, fact: Decision) -> None:
    standing = book.standings[fact.version]
    text = f"{fact.decision} by {fact.by}: {fact.reason}"
    problem = objection(registration, standing, fact)
    if problem:
        ignored = standing.ignored | {fact.event_id: problem}
        book.standings[fact.version] = replace(standing, ignored=ignored)
        detail = f"{text} (did not count: {problem})"
        book.note(fact, fact.version, "decision", None, fact.decision, detail)
        return
    decided_by, rule = (*standing.decided_by, fact.by), standing.rule
    if rule is not None:
        spoke = (*standing.spoke, _speaks_for(rule, fact))
        standing = replace(standing, spoke=spoke)
    standing = replace(standing, decided_by=decided_by)
    book.note(fact, fact.version, "decision", None, fact.decision, text)
    if fact.decision == "reject":
        standing = replace(standing, reasons=(fact.reason,))
    book.standings[fact.version] = standing
    if fact.decision == "reject":
        book.move(fact.version, "rejected", fact, fact.reason)
    elif rule and len(decided_by) >= rule.everybody:
        book.move(fact.version, "approved", fact, f"by {', '.join(decided_by)}")


def _serve(book: _Book, changes: Iterable[ServingChange]) -> list[int]:
    """Apply changes of serving; return versions in service, the champion last."""
    serving: list[int] = []
    for fact in changes:
        before = serving
        if fact.kind == "stopped":
            book.move(fact.version, "rolled_back", fact, fact.reason)
        elif fact.kind == "deployed":
            serving = [v for v in serving if v != fact.version] + [fact.version]
            book.move(fact.version, "deployed", fact)
            for version in sorted(book.replaceable - {fact.version}):
                is_newer = version > fact.version  # and is still on its way
                if book.standings[version].state == "deployed" or not is_newer:
                    detail = f"by version {fact.version}"
                    book.move(version, "superseded", fact, detail)
        else:
            serving = _restored(serving, fact.restored)
            book.move(fact.version, "rolled_back", fact, fact.reason)
            if fact.restored is not None:
                detail = f"in place of version {fact.version}"
                book.move(fact.restored, "deployed", fact, detail)
        _note_aliases(book, fact, before, serving)
    return serving


def _restored(serving: list[int], target: int | None) -> list[int]:
    if target is None:
        return []
    if target in serving:
        return serving[: serving.index(target) + 1]
    return [*serving[:-1], target]


def _note_aliases(
    book: _Book, fact: ServingChange, before: list[int], after: list[int]
) -> None:
    for position, name in ((-1, "champion"), (-2, "previous")):
        old, new = (
            versions[position] if len(versions) >= -position else None
            for versions in (before, after)
        )
        if old != new:
            book.note(
                fact,
                new,
                f"alias:{name}",
                None if old is None else str(old),
                None if new is None else str(new),
            )
