"""One file per tracker: initialize(image, bbox), track(image)."""
