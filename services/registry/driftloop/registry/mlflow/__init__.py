"""MLflow's REST interface: experiments and runs, kept as events."""
