"""Reading dataset versions: rows, statistics, differences, reports.

For those who got a ``DatasetRef`` in an event; the extra ``driftloop-runtime[data]``
brings what it needs.
"""
