"""Fully-supervised Ocean."""
