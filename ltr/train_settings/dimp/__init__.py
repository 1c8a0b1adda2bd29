"""DiMP, PrDiMP and SuperDiMP, every frame labelled."""
