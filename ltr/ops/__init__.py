"""Operators that torch lacks."""
