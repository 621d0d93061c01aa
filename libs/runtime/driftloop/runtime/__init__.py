"""What every driftloop process runs on: Kafka, database, artifacts, telemetry.

A service is a list of handlers, a frozen dataclass of dependencies and a
:class:`~driftloop.runtime.service.Service`; a message passes
:mod:`~driftloop.runtime.runner` → handler → core and back.
"""
