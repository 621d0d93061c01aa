"""Events, topics and the pipeline file: all that services share.

Start with :mod:`driftloop.contracts.topics`.
"""
