"""Objectives: network outputs and targets to a loss."""
