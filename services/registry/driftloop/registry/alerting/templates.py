"""Templates of requests: fields are replaced, and nothing is executed; pure.

Each value is written as its place needs it, so that none can end a string, add a
field or a header, or reach another host than the one that the file says.
"""

import json
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple
from urllib.parse import quote, quote_plus

from driftloop.contracts.alerting import PLACEHOLDER, TemplateChannel
from driftloop.registry.alerting.content import Content, one_line

MEDIA_TYPES: dict[Literal["json", "form", "text"], str] = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "text": "text/plain; charset=utf-8",
}


class Request(NamedTuple):
    """What is sent."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


def request_of(
    channel: TemplateChannel, content: Content, secrets: Mapping[str, str]
) -> Request:
    """Fill a template in.

    Parameters
    ----------
    secrets : by name; those that the template names.
    """
    values = {**content.fields(), **{f"secret.{k}": v for k, v in secrets.items()}}
    body = filled(channel.body, values, IN_BODY[channel.content])
    headers = {
        name: filled(text, values, _in_header) for name, text in channel.headers.items()
    }
    headers["Content-Type"] = MEDIA_TYPES[channel.content]
    return Request(
        channel.method,
        filled(channel.url, values, lambda value: quote(value, safe="")),
        headers,
        body.encode() if channel.method != "GET" else b"",
    )


def filled(
    template: str, values: Mapping[str, str], written: Callable[[str], str]
) -> str:
    """Replace each field once; what values say is not looked at again.

    >>> filled("{{a}} {{ b }}", {"a": "{{b}}", "b": "2"}, str)
    '{{b}} 2'
    """
    return PLACEHOLDER.sub(lambda found: written(values[found[1]]), template)


def _in_json(value: str) -> str:
    """Return a value as it stands within the quotation marks of a JSON string."""
    return json.dumps(value)[1:-1]


def _in_header(value: str) -> str:
    return one_line(value).encode("ascii", "replace").decode()


IN_BODY: dict[str, Callable[[str], str]] = {
    "json": _in_json,
    "form": quote_plus,
    "text": str,
}
