"""The page of `make bench`: what a row says, and that the page holds what was measured."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import benchmarks
from benchmarks import Row, paired, rates, scaled, table
from benchmarks._page import Section, first_paragraph, machine, page, section_of
from config.cli import positive
from config.errors import UserError


def test_a_ratio_says_how_many_times_better_ours_is():
    times = Row("times", "ms", [1.0, 2.0, 4.0], [8.0, 8.0, 8.0], target=4)
    assert times.ratios == [8, 4, 2] and times.reached
    assert times.cells() == ["times", "2.00 ms", "8.00 ms", "4.00x", "2.00 - 8.00", "4x"]
    speeds = Row("rate", "frames/s", rates(10, [1.0, 2.0]), rates(10, [4.0, 4.0]), target=3.5)
    assert speeds.ratios == [4, 2] and speeds.reached is False
    assert speeds.cells()[-1] == "3.5x, missed"


def test_a_row_without_a_baseline_has_a_limit_or_nothing_to_reach():
    assert Row("a", "ms", [3.0]).reached is None
    assert Row("a", "ms", [3.0], limit=3).reached and not Row("a", "ms", [3.0], limit=2.9).reached
    rate = Row("a", "pairs/s", [5.0], [4.0], limit=6)
    assert rate.reached is False and rate.cells()[-2:] == ["1.25 - 1.25", "at least 6 pairs/s, missed"]
    assert Row("a", "us", [1234.5], limit=2).cells() == ["a", "1,234 us", "", "", "", "at most 2 us, missed"]


def test_both_sides_take_turns_after_a_call_that_does_not_count():
    calls, ticks = [], iter(range(100))
    ours, theirs = paired(lambda: calls.append("ours"), lambda: calls.append("plain"), 2, lambda: next(ticks))
    assert calls == ["ours", "plain"] * 3
    assert ours == theirs == [1, 1] and scaled(ours, 1e3) == [1000, 1000]


def test_the_page_holds_every_section_and_names_what_did_not_run():
    rows = [Row("good", "ms", [1.0], [2.0], target=2), Row("bad", "ms", [1.0], [1.0], target=2)]
    text = page([Section("fast", "What it is.", rows, 90.0), Section("slow_one", "Long.", slow="an hour")])
    assert "1 of 2 targets are reached. 1 benchmarks took 2 minutes." in text
    assert re.search(r"## fast\n\nWhat it is.\n\n\|", text) and "| bad " in text and "2x, missed" in text
    assert "- `python -m benchmarks.slow_one` (an hour): Long." in text
    for name, value in machine().items():
        assert value and f"- {name}: " in text
    assert table(rows).count("\n") == 3


def test_a_benchmark_runs_in_a_process_of_its_own():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        section = pool.submit(section_of, "spot_effect").result()
    assert section.slow == "an hour" and section.text.startswith("Does the sparse stage help?")


@pytest.mark.parametrize("text", ["One\nline.\n\nMore.", "One line."])
def test_the_first_paragraph_is_one_line(text):
    assert first_paragraph(text) == "One line."


TAKING_OPTIONS = [
    path.stem
    for path in sorted(Path(benchmarks.__file__).parent.glob("*.py"))
    if "Options(" in path.read_text()
]


@pytest.mark.parametrize("name", TAKING_OPTIONS)
def test_a_wrong_option_is_one_line(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--frame"])
    with pytest.raises(UserError, match=rf"--frame \(see {name}.py --help\)"):
        importlib.import_module(f"benchmarks.{name}").main()


def test_what_counts_is_a_whole_number():
    assert positive("12") == 12
    for text in ("0", "-1", "1.5", "", "two"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a whole number"):
            positive(text)
