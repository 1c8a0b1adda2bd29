"""Regressors of bounding boxes."""
