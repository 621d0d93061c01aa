"""Alerts: whom to tell of which, when, by which channel; see docs/alerts.md."""
