"""What surrounds a training: processes, checkpoints, logs, and whether a run may go on."""
