"""Who asks: a proven name and the rights that come with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from driftloop.contracts.roles import Action, Rights, roles_for

OPERATOR = "operator"
"""Subject of the installation's own token, which names nobody."""


class IdentityError(Exception):
    """The credential proves nobody; the text says what to do."""


class NotReadyError(Exception):
    """Who may do what has not been read yet."""


class DeniedError(Exception):
    """A proven caller has no right to this; the text names the role."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose credential was checked.

    Attributes
    ----------
    subject : who it is; two credentials of one subject are one person.
    credential : which one it was; names it in the audit trail, and is no secret.
    is_operator : it is the installation's own token: all rights, no person.
    may_decide : an operator may also decide, in the name of whom they name.
    until : when the credential ends; None: it does not.
    """

    subject: str
    credential: str
    rights: Rights = field(default_factory=Rights)
    is_operator: bool = False
    may_decide: bool = False
    until: datetime | None = None

    def may(
        self, action: Action, project: str, shared_with: Sequence[str] = ()
    ) -> bool:
        """Whether an action on something of a project is granted."""
        if self.is_operator:
            return action != "approve" or self.may_decide
        return self.rights.may(action, project, shared_with)

    def may_somewhere(self, action: Action) -> bool:
        """Whether an action is granted in any project."""
        if self.is_operator:
            return action != "approve" or self.may_decide
        return self.rights.may_somewhere(action)

    def named(self, claimed: str | None) -> str:
        """Return who acts, where a request may also say a name.

        Raises
        ------
        DeniedError
            When it says another name than the credential proves.

        >>> Caller("ann", "token:1").named(None)
        'ann'
        >>> Caller("operator", "operator", is_operator=True).named("ben")
        'ben'
        """
        if self.is_operator:
            return claimed or OPERATOR
        if claimed is not None and claimed != self.subject:
            raise DeniedError(
                f"this credential is {self.subject}'s: leave the name {claimed!r:.80} "
                "out, or use a credential of theirs"
            )
        return self.subject

    def refusal(self, action: Action, project: str | None) -> DeniedError:
        """Return the error for an action that is not granted."""
        if self.is_operator:
            return DeniedError(
                "the installation's own token proves no person, so it cannot decide: "
                "use the credential of an approver (driftloop tokens create NAME "
                "--role approver); where one person does all, set "
                "DRIFTLOOP_OPERATOR_DECIDES=true"
            )
        where = "a project" if project is None else f"project {project!r}"
        return DeniedError(
            f"{self.subject} may not {action.replace('_', ' ')} here: it takes the "
            f"role {roles_for(action)} in {where}, which an admin gives"
        )
