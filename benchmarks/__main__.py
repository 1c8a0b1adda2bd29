"""``python -m benchmarks``: the ``main()`` of every module of this folder, one after the other."""

from __future__ import annotations

import importlib
import pkgutil

import benchmarks
from config.cli import run
from config.console import say


def main() -> None:
    """Run all benchmarks but the slow ones, which are named."""
    for module in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda module: module.name):
        if module.name.startswith("_"):
            continue
        benchmark = importlib.import_module(f"benchmarks.{module.name}")
        if getattr(benchmark, "SLOW", False):
            say(
                f"{module.name}: takes an hour, run it by itself: python -m benchmarks.{module.name}", "title"
            )
            continue
        say(module.name, "title")
        benchmark.main()


if __name__ == "__main__":
    run(main)
