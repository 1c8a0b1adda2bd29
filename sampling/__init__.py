"""Which frames of which video carry a label."""
