"""Which tracker runs on which sequence, device and rank; result files."""
