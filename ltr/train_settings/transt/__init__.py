"""Fully-supervised TransT."""
