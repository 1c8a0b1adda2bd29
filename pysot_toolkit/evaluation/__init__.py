"""Evaluation: pure functions from boxes to numbers, one file per protocol, and the report around them."""
