"""Opening a benchmark by name."""

from __future__ import annotations

from pathlib import Path

from config.environment import dataset_dir, local_file, resolve
from config.errors import UserError, nearest
from config.settings import Settings
from pysot_toolkit.datasets.base import BENCHMARKS, Benchmark, BenchmarkFormat, Sequence, check_names
from pysot_toolkit.datasets.seq_file import read_seq_file


class SeqFileOnly(BenchmarkFormat):
    """A benchmark that is known by its pysot JSON file alone."""

    nan_is_absent = True  # nobody has said that it is not

    def read_folder(self, root: Path) -> list[Sequence]:
        return []


def open_benchmark(name: str, settings: Settings) -> Benchmark:
    """The benchmark ``name`` in the folder ``paths.test.{name}``.

    Its sequences come from a pysot JSON file ``{name}.json`` in ``paths.seq_files``, in the folder,
    beside it or in ``seq_files`` beside it, whichever is found first; else from the folder itself.
    A benchmark nobody has written a reader for needs the JSON file.

    Raises:
        UserError: unknown name, folder not configured or missing, nothing in it.
    """
    configured = settings.paths.test
    if name not in BENCHMARKS.names() and name not in configured:
        known = {*BENCHMARKS.names(), *configured}
        raise UserError(
            f"unknown benchmark '{name}': {nearest(name, known)} (test_dataset_dirs in {local_file()})"
        )
    root = dataset_dir(settings, "test", name)
    layout: BenchmarkFormat = BENCHMARKS.get(name)() if name in BENCHMARKS.names() else SeqFileOnly()
    places = _seq_files(name, root, settings)
    source = next((place for place in places if place.is_file()), root)
    sequences = layout.read_folder(root) if source is root else read_seq_file(source, root, layout)
    if not sequences:
        wanted = " ".join((layout.__doc__ or "").split("\n\n")[0].replace("`", "").split())
        raise UserError(f"{root}: no sequences of {name} found there ({wanted}), nor a {places[-2]}")
    check_names(sequences, source)
    return Benchmark(name, sequences, layout, source)


def _seq_files(name: str, root: Path, settings: Settings) -> list[Path]:
    folders = [resolve(settings.paths.seq_files)] if settings.paths.seq_files else []
    return [folder / f"{name}.json" for folder in (*folders, root, root.parent / "seq_files", root.parent)]
