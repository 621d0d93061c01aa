"""Access tokens of an identity provider (OpenID Connect): JWTs, checked here.

What is checked: signature by a key of the provider, algorithm out of the pinned list,
issuer, audience, validity. Which key and which algorithm a token claims only selects
among what is allowed. Sources: RFC 7519, RFC 8725 (best practices), RFC 9068.
"""

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from driftloop.contracts.roles import Binding, Rights, RoleError, parse_binding
from driftloop.runtime.identity.callers import Caller, IdentityError, NotReadyError
from driftloop.runtime.settings import Oidc
from driftloop.runtime.telemetry import log

MAX_TOKEN_CHARACTERS = 8 * 1024
KEPT_CALLERS = 1024
"""Tokens whose check is remembered until they end; a signature takes 0.1 ms."""
KEYS_AGE_S = 600.0
"""After that keys are fetched again: one that the provider took back is gone then."""
PAUSE_S = 30.0
"""Between two fetches for a key that is not there, or after a failed one."""
FETCH_TIMEOUT_S = 5
KEY_TYPES = frozenset({"RSA", "EC", "OKP"})
"""No symmetric key: who checks such a token could make one."""
logger = log(__name__)


class ProviderKeys:
    """The provider's public keys by id; a new id makes it look for new keys."""

    def __init__(self, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str | None, Mapping[str, Any]] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None

    def get(self, kid: str | None) -> Mapping[str, Any] | None:
        """Return a key (JWK); None: the provider has none of this id.

        Raises
        ------
        NotReadyError
            When no keys could be fetched yet.
        """
        with self._lock:
            now = self._clock()
            is_old = self._fetched_at is None or now - self._fetched_at > KEYS_AGE_S
            rested = self._tried_at is None or now - self._tried_at > PAUSE_S
            if rested and (is_old or kid not in self._keys):
                self._tried_at = now
                self._fetch(now)
            if self._fetched_at is None:
                raise NotReadyError("the identity provider's keys cannot be had")
            return self._keys.get(kid)

    def _fetch(self, now: float) -> None:
        """Fetch the keys; on failure those from before stay."""
        try:
            content = self._read()
            keys = [key for key in content["keys"] if key.get("kty") in KEY_TYPES]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("the identity provider's keys", error=str(error))
        except jwt.PyJWTError as error:
            logger.warning("the identity provider's keys", error=str(error))
        else:
            self._keys = {k.get("kid"): k for k in keys if k.get("use", "sig") == "sig"}
            self._fetched_at = now

    def _read(self) -> dict[str, Any]:
        if self._place.startswith(("https://", "http://")):
            client = jwt.PyJWKClient(
                self._place, cache_jwk_set=False, timeout=FETCH_TIMEOUT_S
            )
            content: dict[str, Any] = client.fetch_data()
        else:
            content = json.loads(Path(self._place).read_text(encoding="utf-8"))
        return content


class AccessTokens:
    """Turns an access token into a caller."""

    def __init__(
        self, settings: Oidc, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._keys = ProviderKeys(settings.jwks, clock)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Caller] = OrderedDict()

    def known(self, token: str) -> Caller | None:
        """Return the caller of a token that was checked before and still holds."""
        with self._lock:
            found = self._known.get(_digest(token))
        if found is None or found.until is None or found.until <= datetime.now(UTC):
            return None
        return found

    def check(self, token: str) -> Caller:
        """Return whose token it is; may wait for the provider.

        Raises
        ------
        IdentityError
            Says what is wrong with the token.
        NotReadyError
            When the provider's keys cannot be had.
        """
        claims = self._claims(token)
        subject = claims.get(self._settings.subject_claim)
        if not isinstance(subject, str) or not subject:
            raise IdentityError(
                f"the access token has no claim {self._settings.subject_claim!r}"
            )
        digest = _digest(token)
        rights = rights_of(claims, self._settings)
        until = datetime.fromtimestamp(float(claims["exp"]), UTC)
        caller = Caller(subject, f"oidc:{digest.hex()[:16]}", rights, until=until)
        with self._lock:
            self._known[digest] = caller
            while len(self._known) > KEPT_CALLERS:
                self._known.popitem(last=False)
        return caller

    def _claims(self, token: str) -> dict[str, Any]:
        ours = self._settings
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise IdentityError("the access token is too long")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in ours.algorithms:
                raise IdentityError(
                    f"the access token is signed with {algorithm!r:.20}; here it has "
                    f"to be {', '.join(ours.algorithms)}"
                )
            key = self._keys.get(kid)
            if key is None or key.get("alg", algorithm) != algorithm:
                raise IdentityError("the access token is signed with an unknown key")
            claims: dict[str, Any] = jwt.decode(
                token,
                jwt.PyJWK(dict(key), algorithm=algorithm),
                algorithms=[algorithm],
                audience=ours.audience,
                issuer=ours.issuer,
                leeway=ours.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise IdentityError(f"the access token is not valid: {error}") from error
        return claims


def rights_of(claims: Mapping[str, Any], settings: Oidc) -> Rights:
    """Return the rights that a token's claims give; what is no role gives none.

    The claim is found by a path with dots (``realm_access.roles``); it holds a list, or
    a text with spaces. With ``role_map`` only what is in the map counts.
    """
    value: Any = claims
    for part in settings.roles_claim.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list):
        return Rights()
    bindings: set[Binding] = set()
    for name in names:
        if not isinstance(name, str):
            continue
        mapped = settings.role_map.get(name, []) if settings.role_map else [name]
        for text in mapped:
            try:
                bindings.add(parse_binding(text))
            except RoleError:
                continue  # a role of another system
    return Rights(frozenset(bindings))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
