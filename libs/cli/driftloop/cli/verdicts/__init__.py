"""``driftloop verdicts`` and ``driftloop overrule``."""
