"""Training: learning tracking representations."""
