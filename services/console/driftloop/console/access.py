"""Who may see the page: the token once in the address, then a cookie.

The cookie is not the token: cookies of a host go to every port of it, and what
another process there sees must not open the other interfaces.
"""

import hashlib
import hmac
import os
import time
from typing import Annotated

from driftloop.contracts.roles import EVERYWHERE
from driftloop.runtime.identity.callers import Caller, IdentityError, NotReadyError
from driftloop.runtime.identity.routing import (
    Needs,
    authenticate,
    bearer,
    guard_of,
)
from driftloop.runtime.settings import Settings
from fastapi import Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPAuthorizationCredentials
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "driftloop-console"
KEY_BYTES = 32
COOKIE_AGE_S = 30 * 24 * 3600
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>driftloop</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{head}
<link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/style.css">
</head><body class="door"><main><h1>driftloop</h1>{body}</main></body></html>
"""
CLOSED = """<p>This page needs the installation's token, or one that may read all.</p>
<p>Run <code>driftloop status</code> and open the console link that it prints.</p>"""
OPENED = '<p>Signed in. <a href="/">Go on</a></p>'


class Access(Needs):
    """Lets those see the page who may read the pipelines of all projects.

    They prove it by the header, or by the cookie that the token in the link gave them.
    The cookie says which credential it was and until when, under a key that only this
    installation has; one that is taken back ends with its credential.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__("read")
        token = settings.api_token
        # without a token of the installation a restart asks for the link again
        secret = token.get_secret_value().encode() if token else os.urandom(KEY_BYTES)
        self._key = hmac.digest(secret, COOKIE.encode(), hashlib.sha256)

    async def __call__(
        self,
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None,
    ) -> None:
        if self.has_cookie(request):
            return
        caller = await authenticate(request)
        if not _may_see(caller):
            raise HTTPException(403, str(caller.refusal("read", EVERYWHERE)))

    async def is_allowed(self, request: Request) -> bool:
        """Whether a request has the cookie, or its header the right."""
        try:
            await self(request)
        except HTTPException:
            return False
        return True

    def has_cookie(self, request: Request) -> bool:
        """Whether a request has a cookie that still holds."""
        said, _, mac = request.cookies.get(COOKIE, "").rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(said).encode()):
            return False
        credential, _, end_s = said.rpartition(".")
        return int(end_s) > time.time() and guard_of(request).still_holds(credential)

    async def sign_in(self, request: Request, token: str) -> Response:
        """Set the cookie for a right token; go on to the page without the token.

        By a page and not by a redirect: a strict cookie is not sent along a redirect
        that another site began.
        """
        try:
            caller = await guard_of(request).caller(token)
        except (IdentityError, NotReadyError):
            return closed_page()
        if not _may_see(caller):
            return closed_page()
        age_s = COOKIE_AGE_S
        if caller.until is not None:
            age_s = min(age_s, max(int(caller.until.timestamp() - time.time()), 0))
        said = f"{caller.credential}.{int(time.time()) + age_s}"
        head = '<meta http-equiv="refresh" content="0;url=/">'
        response = HTMLResponse(PAGE.format(head=head, body=OPENED))
        response.set_cookie(
            COOKIE,
            f"{said}.{self._mac(said)}",
            max_age=age_s,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    def _mac(self, said: str) -> str:
        return hmac.new(self._key, said.encode(), hashlib.sha256).hexdigest()


def _may_see(caller: Caller) -> bool:
    return caller.may("read", EVERYWHERE)


def closed_page() -> Response:
    return HTMLResponse(PAGE.format(head="", body=CLOSED), 401)


class SecurityHeaders:
    """Adds the headers of a page that loads nothing from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
