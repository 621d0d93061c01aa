"""The forms that mail, Slack, Teams and programs take a notice in; pure."""

import html
import json
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from driftloop.registry.alerting.content import Content, cut

COLOURS = {"info": "#0969da", "warning": "#9a6700", "critical": "#b42318"}
"""Each readable on white (contrast above 4.5, WCAG 2.2, 1.4.3)."""
OVER_COLOUR = "#1a7f37"
DARK_COLOURS = {"info": "#58a6ff", "warning": "#e3b341", "critical": "#ff7b72"}
DARK_OVER_COLOUR = "#56d364"
"""The same on a dark page, in mail programs that ask for one."""
CARD_STYLES = {"info": "accent", "warning": "warning", "critical": "attention"}
SIGNS = {"info": "ℹ️", "warning": "⚠️", "critical": "🔴"}  # noqa: RUF001 - a pictogram
OVER_SIGN = "✅"
SLACK_HEADER, SLACK_TEXT = 150, 2900
"""Most characters of a header and a text (docs.slack.dev, Block Kit), with room."""
CARD_SCHEMA = "http://adaptivecards.io/schemas/adaptive-card.json"
CARD_VERSION = "1.4"
"""Teams shows up to this one on every device."""
WEBHOOK_VERSION = 1


def sign_of(content: Content) -> str:
    return OVER_SIGN if content.is_over else SIGNS[content.severity]


# ── plain text and mail ─────────────────────────────────────────────────────


def plain(content: Content) -> str:
    """Return a notice as text that people read in a terminal or a mail."""
    width = max(len(label) for label, _ in content.lines())
    parts = [
        content.title,
        "",
        content.cause,
        *(["", f"What to do: {content.remedy}"] if content.remedy else []),
        "",
        *(f"{label:<{width}}  {text}" for label, text in content.lines()),
        *(["", content.console] if content.console else []),
    ]
    return "\n".join(parts) + "\n"


def as_html(content: Content) -> str:
    """Return a notice as a page; it loads nothing, and has no script."""
    colour = OVER_COLOUR if content.is_over else COLOURS[content.severity]
    dark = DARK_OVER_COLOUR if content.is_over else DARK_COLOURS[content.severity]
    esc = html.escape
    rows = "".join(
        f'<tr><td class="quiet" style="padding:2px 16px 2px 0;color:#59636e;'
        f'vertical-align:top">{esc(label)}</td>'
        f'<td style="padding:2px 0;overflow-wrap:anywhere">{esc(text)}</td></tr>'
        for label, text in content.lines()
    )
    remedy = (
        '<p class="back" style="margin:0 0 16px;padding:12px 16px;background:#f6f8fa">'
        f"<strong>What to do</strong><br>{esc(content.remedy)}</p>"
        if content.remedy
        else ""
    )
    link = (
        f'<p style="margin:16px 0 0"><a href="{esc(content.console)}" '
        f'class="tone" style="color:{colour}">Open the console</a></p>'
        if content.console
        else ""
    )
    state = "over" if content.is_over else content.severity
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(content.heading)}</title><style>{_dark(dark)}</style></head>"
        '<body class="back" style="margin:0;padding:16px;background:#f6f8fa;'
        "color:#1f2328;"
        'font:15px/1.5 -apple-system,Segoe UI,Helvetica,Arial,sans-serif">'
        '<div class="page" style="max-width:600px;margin:0 auto;background:#fff;'
        f'border-top:4px solid {colour};padding:24px">'
        f'<p class="tone" style="margin:0 0 4px;color:{colour};font-weight:600">'
        f"{esc(state)}</p>"
        '<h1 style="margin:0 0 16px;font-size:20px;line-height:1.3">'
        f"{esc(content.title)}</h1>"
        f'<p style="margin:0 0 16px;white-space:pre-line">{esc(content.cause)}</p>'
        f'{remedy}<table style="border-collapse:collapse;font-size:13px">{rows}'
        f"</table>{link}</div></body></html>\n"
    )


def _dark(tone: str) -> str:
    """Return the style of a dark page; what stands inline gives way to it."""
    rules = (
        ".back{background:#0d1117!important;color:#e6edf3!important}"
        ".page{background:#161b22!important;color:#e6edf3!important;"
        f"border-top-color:{tone}!important}}"
        f".tone{{color:{tone}!important}}.quiet{{color:#9198a1!important}}"
    )
    return f"@media(prefers-color-scheme:dark){{{rules}}}"


def mail(content: Content, sender: str, to: list[str]) -> EmailMessage:
    """Return a notice as a mail; the same notice has the same Message-ID.

    Mails of one alert are shown as one thread: each refers to the alert's own id.
    """
    message = EmailMessage()
    domain = sender.rpartition("@")[2].rstrip(">") or "driftloop.invalid"
    message["Subject"] = content.heading
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = format_datetime(content.until or content.since)
    message["Message-ID"] = f"<{content.notice_id}@{domain}>"
    message["References"] = f"<{content.alert_id}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody answers to it
    message["X-Driftloop-Alert"] = content.alert_id
    message.set_content(plain(content))
    message.add_alternative(as_html(content), subtype="html")
    return message


# ── chats ───────────────────────────────────────────────────────────────────


def _slack_text(text: str) -> str:
    """Return a text in which nothing is a mention or a link.

    Source: docs.slack.dev, "Formatting message text": these three are escaped.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack(content: Content) -> dict[str, Any]:
    """Return a notice as blocks of Slack."""

    def marked(text: str) -> dict[str, str]:
        return {"type": "mrkdwn", "text": cut(_slack_text(text), SLACK_TEXT)}

    def bare(text: str, most: int) -> dict[str, Any]:
        return {"type": "plain_text", "text": cut(text, most), "emoji": True}

    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": bare(f"{sign_of(content)} {content.title}", SLACK_HEADER),
        },
    ]
    if content.cause:
        blocks.append({"type": "section", "text": bare(content.cause, SLACK_TEXT)})
    if content.remedy:
        text = bare(f"What to do: {content.remedy}", SLACK_TEXT)
        blocks.append({"type": "section", "text": text})
    facts = " · ".join(f"{label}: {text}" for label, text in content.lines())
    blocks.append({"type": "context", "elements": [marked(facts)]})
    if content.console:
        button = {
            "type": "button",
            "text": bare("Open the console", 75),
            "url": content.console,
        }
        blocks.append({"type": "actions", "elements": [button]})
    return {"text": _slack_text(content.heading), "blocks": blocks}


def teams(content: Content) -> dict[str, Any]:
    """Return a notice as an adaptive card, as a workflow of Teams takes it.

    What an alert says stands in text runs, which know no markup and no links.
    """
    style = "good" if content.is_over else CARD_STYLES[content.severity]

    def run(text: str, **more: Any) -> dict[str, Any]:
        inline = {"type": "TextRun", "text": text, **more}
        return {"type": "RichTextBlock", "inlines": [inline]}

    heading = run(f"{sign_of(content)} {content.title}", weight="bolder", size="large")
    body: list[dict[str, Any]] = [
        {"type": "Container", "style": style, "bleed": True, "items": [heading]},
        run(content.cause or content.condition),
    ]
    if content.remedy:
        body.append(run(f"What to do: {content.remedy}", weight="bolder"))
    body += [
        run(f"{label}: {text}", size="small", isSubtle=True)
        for label, text in content.lines()
    ]
    card: dict[str, Any] = {
        "$schema": CARD_SCHEMA,
        "type": "AdaptiveCard",
        "version": CARD_VERSION,
        "msteams": {"width": "Full"},
        "fallbackText": content.heading,
        "body": body,
    }
    if content.console:
        card["actions"] = [
            {
                "type": "Action.OpenUrl",
                "title": "Open the console",
                "url": content.console,
            }
        ]
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


# ── programs ────────────────────────────────────────────────────────────────


def webhook(content: Content) -> bytes:
    """Return the body of a signed webhook; the same notice has the same bytes."""
    kind = "alert.resolved" if content.is_over else "alert.raised"
    at = content.until if content.is_over and content.until else content.since
    told = {
        "type": kind,
        "version": WEBHOOK_VERSION,
        "timestamp": at.isoformat(),
        "data": content.for_programs(),
    }
    return json.dumps(told, ensure_ascii=False).encode()
