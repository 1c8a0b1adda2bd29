"""Pictures: curves of an evaluation, overlays of boxes on a sequence."""
