"""What trackers that learn on the first frame and go on learning are made of. Positions and sizes are (row, column)."""
