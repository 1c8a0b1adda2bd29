"""Testing and evaluation."""
