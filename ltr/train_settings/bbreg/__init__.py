"""ATOM's box regressors, every frame labelled."""
