"""``python -m benchmarks``: every benchmark of this folder, one after the other, onto ``docs/benchmarks.md``."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
from concurrent.futures import ProcessPoolExecutor

import benchmarks
from benchmarks._page import page, section_of
from benchmarks._rows import table
from config.cli import run
from config.console import say
from config.environment import ROOT
from config.files import write_text

PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> None:
    """Run all but the slow ones, which are named, and write the page."""
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the processes below
    sections = []
    for module in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda module: module.name):
        if module.name.startswith("_"):
            continue
        say(module.name, "title")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            section = pool.submit(section_of, module.name).result()
        sections.append(section)
        if section.slow:
            say(f"{section.slow}; run it by itself: python -m benchmarks.{module.name}")
        else:
            say(f"{table(section.rows)}\n{section.seconds:.0f} s")
    write_text(PAGE, page(sections))
    say(f"written: {PAGE}", "good")


if __name__ == "__main__":
    run(main)
