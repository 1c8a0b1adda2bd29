"""Benchmark readers: a ``Sequence`` has frames, ground truth and attributes, and no predictions."""

from pysot_toolkit.datasets.base import Annotation, Benchmark, Sequence
from pysot_toolkit.datasets.benchmarks import open_benchmark

__all__ = ["Annotation", "Benchmark", "Sequence", "open_benchmark"]
