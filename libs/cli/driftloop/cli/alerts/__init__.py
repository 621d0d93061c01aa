"""Alerts: what goes on, who looks after it, what is silenced."""
