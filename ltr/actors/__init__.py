"""Batch in, loss and statistics out: the only place that knows both network and objective."""
