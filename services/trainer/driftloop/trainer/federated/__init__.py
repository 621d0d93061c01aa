"""Federated rounds: sites train on rows that stay with them, the trainer averages."""
