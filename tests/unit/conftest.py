"""How Hypothesis runs: the same examples each time; ``make fuzz`` looks for new ones.

A test of a change must not fail for what the change did not touch. Nothing fails for
the time that it takes on a busy machine.
"""

from hypothesis import HealthCheck, settings

from tests.unit.support import FUZZ, examples

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", patient, derandomize=True, database=None)
settings.register_profile("fuzz", patient, max_examples=examples(100))
settings.load_profile("fuzz" if FUZZ else "same")
