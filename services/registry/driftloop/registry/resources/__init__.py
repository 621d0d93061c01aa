"""Lists of what the loop did: data, runs, comparisons, approvals, rollouts."""
