"""Who may do what: roles, what each may do, and in which projects.

A pipeline belongs to one project (``project`` of its file). A person or a program has
roles in projects, written ``role@project``; ``role``, or ``role@*``, holds in all.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from driftloop.contracts.base import NAME_PATTERN

Action = Literal[
    "read", "send", "score", "train", "promote", "apply", "govern", "approve",
    "operate", "attend", "comment", "erase", "settle", "reveal", "audit",
    "manage_access",
]  # fmt: skip
"""What a route does; each declares one."""
ACTIONS: tuple[Action, ...] = get_args(Action)

EVERYWHERE = "*"
GRANTS: dict[str, frozenset[Action]] = {
    "data_engineer": frozenset(
        {"read", "send", "erase", "reveal", "attend", "comment"}
    ),
    "data_scientist": frozenset(
        {"read", "score", "train", "promote", "apply", "attend", "comment"}
    ),
    "ml_infra_engineer": frozenset(
        {"read", "score", "promote", "apply", "govern", "operate", "attend", "comment"}
    ),
    "approver": frozenset({"read", "approve", "erase", "settle", "comment"}),
    "auditor": frozenset({"read", "audit", "comment"}),
    "admin": frozenset({"read", "manage_access"}),
    "client": frozenset({"send", "score"}),
}
"""What each role may do; everything else is denied.

``erase`` is one side of an erasure; it takes a data engineer and an approver.
``client`` is for programs: upstream systems and those that ask for predictions. An
admin gives rights and has no others: one who wants more has to write it down.
A role that is not named here grants nothing by itself; the pipeline file can ask for
its holders where it says who approves.
"""
SHARED: frozenset[Action] = frozenset({"read", "score"})
"""What members of a project may do with pipelines that are shared with it."""
BINDING_PATTERN = rf"^[a-z][a-z0-9_]{{0,62}}(@(\*|{NAME_PATTERN[1:-1]}))?$"


class RoleError(ValueError):
    """A role is not written as one; the text says how."""


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """A role, and the project in which it holds; ``*``: in all."""

    role: str
    project: str = EVERYWHERE

    def __str__(self) -> str:
        return f"{self.role}@{self.project}"

    def holds_in(self, project: str) -> bool:
        return self.project in (EVERYWHERE, project)


def parse_binding(text: str) -> Binding:
    """Return a role with its project.

    Raises
    ------
    RoleError
        When the text is neither ``role`` nor ``role@project``.

    >>> parse_binding("approver@credit"), str(parse_binding("auditor"))
    (Binding(role='approver', project='credit'), 'auditor@*')
    """
    if not re.match(BINDING_PATTERN, text):
        raise RoleError(
            f"{text!r:.80} is no role: write role or role@project; roles that may do "
            f"something are {', '.join(GRANTS)}"
        )
    role, _, project = text.partition("@")
    return Binding(role, project or EVERYWHERE)


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do, from all their roles."""

    bindings: frozenset[Binding] = frozenset()

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Rights":
        """Return the rights of roles as they are written.

        Raises
        ------
        RoleError
            Names the text that is no role.
        """
        return cls(frozenset(parse_binding(text) for text in texts))

    def may(
        self, action: Action, project: str, shared_with: Sequence[str] = ()
    ) -> bool:
        """Whether an action on something of a project is granted.

        >>> mine = Rights.of(["data_scientist@credit"])
        >>> mine.may("train", "credit"), mine.may("train", "rides")
        (True, False)
        >>> [mine.may(what, "rides", ["credit"]) for what in ("read", "train")]
        [True, False]
        """
        projects = [project, *(shared_with if action in SHARED else ())]
        return any(
            action in GRANTS.get(b.role, frozenset()) and b.holds_in(p)
            for b in self.bindings
            for p in projects
        )

    def may_somewhere(self, action: Action) -> bool:
        """Whether an action is granted in any project."""
        return any(action in GRANTS.get(b.role, frozenset()) for b in self.bindings)

    def has(self, role: str, project: str) -> bool:
        """Whether a role, known here or not, is held in a project."""
        return any(b.role == role and b.holds_in(project) for b in self.bindings)


def roles_for(action: Action) -> str:
    """Return which roles an action needs, in words.

    >>> roles_for("promote")
    'data_scientist or ml_infra_engineer'
    """
    return " or ".join(role for role, granted in GRANTS.items() if action in granted)
