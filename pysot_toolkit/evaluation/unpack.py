"""Raw results as others publish them, archives or folders of any depth, brought to where ``evaluate`` looks."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from config.environment import var_dir
from config.errors import UserError
from config.files import sha256
from config.settings import Settings
from pysot_toolkit.datasets import Benchmark, open_benchmark
from pysot_toolkit.evaluation.archives import LARGEST, Member, open_archive

Parts = tuple[str, ...]

_ARRANGEMENT = "1"  # counts up when this file places results elsewhere, so that old caches are left alone
_EXPERIMENT = {"vot": "baseline", "votlt": "longterm"}  # folder between tracker and video, by layout
_TEXTS = (".txt", ".value")  # endings of result files, where the layout has no others:
_ENDINGS = {"masks": (".png",), "vot": (*_TEXTS, ".bin"), "votlt": (*_TEXTS, ".bin")}
_BESIDE = ("_time", "_object_presence_scores")  # after a video's name, beside its boxes
_ARCHIVE = re.compile(r"\.(zip|tgz|tbz2?|txz|tar(\.\w+)?)$", re.IGNORECASE)


def unpack(settings: Settings, dataset: str, source: Path) -> Path:
    """The root for ``evaluate(..., results=root)`` of results in a folder or in a zip or tar archive.

    Result files are known by the names of the benchmark's videos, in all toolkits' spellings. The folder they
    lie in is the tracker, whatever is above it: pysot's ``{dataset}/{tracker}/``, pytracking's
    ``{tracker}/{parameters}_000/``, the got10k package's ``{tracker}/{video}/``, LaSOT's
    ``{tracker}_tracking_result/``; files that lie in none belong to a tracker with the archive's name. Where
    folders are named after the data set, only these count. Everything else stays in the archive.

    A folder in our layout is its own root; another one is linked, and an archive extracted, in a folder of
    ``var/cache/results`` that their content names, so that this is done once.

    Raises:
        UserError: neither folder nor archive, no result of this benchmark in it, two trackers of one name, or
            an archive that is broken or not safe to extract (see ``open_archive``).
    """
    benchmark = open_benchmark(dataset, settings)
    cache = var_dir(settings, "cache", "results")
    if source.is_dir():
        return _link(source, benchmark, cache)
    if not source.is_file():
        raise UserError(f"{source}: is neither a folder nor an archive with results; mend the path")
    known = _known(benchmark)
    root = cache / _digest(sha256(source), source.name, dataset, *sorted(known))
    if root.is_dir():
        return root
    with open_archive(source) as members:
        homes = _homes((member.parts for member in members), benchmark)
        trackers = _trackers(source, homes, dataset, _ARCHIVE.sub("", source.name))
        with _whole(root) as folder:
            for member in members:
                home = homes.get(member.parts)
                if home is not None:
                    _extract(
                        source, member, folder.joinpath(dataset, trackers[home], *member.parts[len(home) :])
                    )
    return root


def _link(source: Path, benchmark: Benchmark, cache: Path) -> Path:
    own = source / benchmark.name
    walk = os.walk(own if own.is_dir() else source)
    files = ((*Path(folder).relative_to(source).parts, name) for folder, _, names in walk for name in names)
    homes = _homes(files, benchmark)
    if own.is_dir() and all(len(home) == 2 for home in homes.values()):
        return source
    full = source.resolve()
    trackers = _trackers(source, homes, benchmark.name, full.name)
    root = cache / _digest(str(full), benchmark.name, *(f"{name}={home}" for home, name in trackers.items()))
    if root.is_dir():
        return root
    try:
        with _whole(root) as folder:
            (folder / benchmark.name).mkdir()
            for home, name in trackers.items():
                (folder / benchmark.name / name).symlink_to(full.joinpath(*home), target_is_directory=True)
    except OSError as error:
        raise UserError(f"{root}: cannot be made ({error}); free space or fix permissions") from error
    return root


def _homes(paths: Iterable[Parts], benchmark: Benchmark) -> dict[Parts, Parts]:
    """Path of each result of the benchmark to that of its tracker's folder."""
    known, layout = _known(benchmark), benchmark.layout.results
    homes = {parts: parts[:-depth] for parts in paths if (depth := _depth(parts, known, layout))}
    within = {
        parts: home for parts, home in homes.items() if any(_names(benchmark.name, part) for part in home)
    }
    return within or homes


def _known(benchmark: Benchmark) -> frozenset[str]:
    """The names of the videos, as any toolkit writes them."""
    return frozenset(name for sequence in benchmark for name in benchmark.layout.result_names(sequence.name))


def _names(dataset: str, folder: str) -> bool:
    return folder.casefold() == dataset.casefold()


def _depth(parts: Parts, known: frozenset[str], layout: str) -> int:
    """How many parts of a path, from its end, lie inside the tracker's folder; 0: no result."""
    *folders, file = parts
    stem, ending = os.path.splitext(file)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    if hidden or ending not in _ENDINGS.get(layout, _TEXTS):
        return 0
    above = folders[-1] if folders else ""
    if above in known and (layout == "masks" or stem.startswith(f"{above}_")):
        if layout not in _EXPERIMENT:
            return 2
        return 3 if folders[-2:-1] == [_EXPERIMENT[layout]] else 0
    if layout in ("boxes", "repeated"):
        for suffix in _BESIDE:
            stem = stem.removesuffix(suffix)
        if stem in known:
            return 2 if above == "times" else 1
    return 0


def _trackers(source: Path, homes: dict[Parts, Parts], dataset: str, fallback: str) -> dict[Parts, str]:
    """Folder of each tracker to its name: the last folder's, with those above it where that is not enough."""
    if not homes:
        raise UserError(f"{source}: holds no result of a video of {dataset}; give another --dataset")
    tails = {}
    for home in sorted(set(homes.values())):
        tail = [part.removesuffix("_tracking_result") for part in home if not _names(dataset, part)]
        tails[home] = tail or [fallback]
    names = {home: tail[-1] for home, tail in tails.items()}
    if len(set(names.values())) < len(names):
        levels = zip(*tails.values())
        shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
        names = {home: "_".join(tail[shared:]) or tail[-1] for home, tail in tails.items()}
    taken: dict[str, Parts] = {}
    for home, name in names.items():
        if taken.setdefault(name, home) != home:
            first = "/".join(taken[name])
            raise UserError(
                f"{source}: '{first}' and '{'/'.join(home)}' both hold tracker '{name}'; rename one"
            )
    return names


def _extract(source: Path, member: Member, target: Path) -> None:
    if member.size > LARGEST:
        raise UserError(
            f"{source}: '{'/'.join(member.parts)}' has {member.size} bytes, no result has; ask whoever packed it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as packed, open(target, "xb") as file:
        shutil.copyfileobj(packed, file)


@contextlib.contextmanager
def _whole(root: Path) -> Iterator[Path]:
    """A folder that becomes ``root`` when the block ends well, and is gone otherwise."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as temporary:
        folder = Path(temporary) / "whole"  # made with the user's own permissions
        folder.mkdir()
        yield folder
        try:
            os.rename(folder, root)
        except OSError:
            if not root.is_dir():  # else another process was faster, with the same content
                raise


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join((_ARRANGEMENT, *texts)).encode()).hexdigest()[:16]
