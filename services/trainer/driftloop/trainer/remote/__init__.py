"""Trainings elsewhere: Ray or Kubernetes starts them, the store carries them."""
