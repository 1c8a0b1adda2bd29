"""Classifiers of target and background that are learned from a few frames while running."""
