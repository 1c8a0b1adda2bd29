"""The assembled networks."""
