"""``docs/benchmarks.md``: the rows of all benchmarks, and the machine they were measured on."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks._rows import Row, table

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "simplejpeg",
    "turbojpeg",
    "orjson",
    "pillow",
)


@dataclass(frozen=True)
class Section:
    """One benchmark: its module's name and first paragraph, what it found, or how long it would have taken."""

    name: str
    text: str
    rows: Sequence[Row] = ()
    seconds: float = 0.0
    slow: str = ""


def section_of(name: str) -> Section:
    """Run one benchmark in this process; a slow one is only named."""
    module = importlib.import_module(f"benchmarks.{name}")
    text, slow = first_paragraph(module.__doc__ or ""), getattr(module, "SLOW", "")
    if slow:
        return Section(name, text, slow=slow)
    begin = time.perf_counter()
    return Section(name, text, module.measure(), time.perf_counter() - begin)


def page(sections: Sequence[Section]) -> str:
    """The page as Markdown."""
    ran = [section for section in sections if not section.slow]
    judged = [row.reached for section in ran for row in section.rows if row.reached is not None]
    minutes = sum(section.seconds for section in ran) / 60
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. A ratio says how many times better ours is than the baseline that took turns with",
        "it in the same run: its median over the repetitions, then the smallest and the largest. Numbers of ours and",
        "of the baseline are medians. Where no other clock is named, times are CPU times of one thread.",
        "",
        f"{sum(judged)} of {len(judged)} targets are reached. {len(ran)} benchmarks took {minutes:.0f} minutes.",
        "",
        *_listed(machine()),
    ]
    for section in ran:
        lines += ["", f"## {section.name}", "", section.text, "", table(section.rows, "github")]
    slow = [section for section in sections if section.slow]
    if slow:
        lines += ["", "## Not run here", ""]
        lines += [f"- `python -m benchmarks.{s.name}` ({s.slow}): {s.text}" for s in slow]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    versions = [f"{name} {version}" for name in _PACKAGES if (version := _version(name))]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory",
        "GPU": ", ".join(gpus) or "none",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(versions),
        "load at the end": f"{os.getloadavg()[0]:.1f} processes over the last minute",
    }


def first_paragraph(text: str) -> str:
    """Of a docstring, as one line."""
    return " ".join(text.strip().partition("\n\n")[0].split())


def _listed(facts: dict[str, str]) -> list[str]:
    return [f"- {name}: {value}" for name, value in facts.items()]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The model's name (Linux; elsewhere what Python knows)."""
    try:
        found = Path("/proc/cpuinfo").read_text().partition("model name")[2]
    except OSError:
        found = ""
    return found.partition("\n")[0].strip("\t :") or platform.processor() or platform.machine()
