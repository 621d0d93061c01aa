"""Who may see the page: the token once in the address, then a cookie.

The cookie is not the token: cookies of a host go to every port of it, and what
another process there sees must not open the other interfaces.
"""

import hashlib
import hmac

from driftloop.runtime.settings import Settings
from fastapi import HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "driftloop-console"
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
CLOSED = """<p>This page needs the installation's token.</p>
<p>Run <code>driftloop status</code> and open the console link that it prints.</p>"""
OPENED = '<p>Signed in. <a href="/">Go on</a></p>'


class Access:
    """Checks requests against the installation's token.

    Raises
    ------
    RuntimeError
        When no token is set: there is no open door by default.
    """

    def __init__(self, settings: Settings) -> None:
        token = settings.api_token
        if token is None or not token.get_secret_value():
            raise RuntimeError(
                "the console has no token: set DRIFTLOOP_API_TOKEN to a long "
                "random text"
            )
        self._token = token.get_secret_value().encode()
        self._cookie = hmac.new(self._token, COOKIE.encode(), hashlib.sha256)

    def is_allowed(self, request: Request) -> bool:
        """Whether a request has the cookie or the token in its header."""
        cookie = request.cookies.get(COOKIE, "")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return _equal(cookie.encode(), self._cookie.hexdigest().encode()) or (
            scheme.lower() == "bearer" and _equal(given.encode(), self._token)
        )

    def require(self, request: Request) -> None:
        """Let only those pass who are allowed.

        Raises
        ------
        HTTPException
            401 otherwise.
        """
        if not self.is_allowed(request):
            raise HTTPException(
                401,
                "open the console link that driftloop status prints, or send "
                "'Authorization: Bearer TOKEN'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def sign_in(self, request: Request, token: str) -> Response:
        """Set the cookie for a right token; go on to the page without the token.

        By a page and not by a redirect: a strict cookie is not sent along a redirect
        that another site began.
        """
        if not _equal(token.encode(), self._token):
            return closed_page()
        head = '<meta http-equiv="refresh" content="0;url=/">'
        response = HTMLResponse(PAGE.format(head=head, body=OPENED))
        response.set_cookie(
            COOKIE,
            self._cookie.hexdigest(),
            max_age=COOKIE_AGE_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response


def closed_page() -> Response:
    return HTMLResponse(PAGE.format(head="", body=CLOSED), 401)


def _equal(given: bytes, wanted: bytes) -> bool:
    return hmac.compare_digest(given, wanted)


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
