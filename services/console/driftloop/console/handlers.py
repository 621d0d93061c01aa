"""The console handles no event: it reads the whole log by position, see ``reading``.

It is no member of a consumer group and stores nothing, so that any number of
consoles may be opened and closed without a trace.
"""

from driftloop.runtime.handlers import EventHandler

HANDLERS: list[EventHandler] = []
