"""Sparsely-supervised variants."""
