"""Say what is there and what is missing: machine, ranks, paths, data sets, key frames, weights, benchmarks.

Each part is imported where it is looked at, so that a broken one is named and the others are still seen.
Exit code 0 when nothing that a plain run needs is broken, else 1.
"""

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.cli import Parser, overrides, run
from config.console import paint, say
from config.environment import ROOT, choose_device, dataset_dir, local_file, resolve, var_dir
from config.errors import UserError
from config.settings import Settings

GOOD, ABSENT, BROKEN = "ok", "absent", "broken"
STYLES = {GOOD: "good", ABSENT: "warning", BROKEN: "error"}

# What a part may die of while it is imported or asked; the row then names it.
BREAKAGE = (
    *(ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError),
    *(LookupError, RuntimeError, OSError, UserError),
)

SOURCES = {
    "LaSOT": "http://vision.cs.stonybrook.edu/~lasot/",
    "LaSOT_extension_subset": "http://vision.cs.stonybrook.edu/~lasot/download.html",
    "GOT-10k": "http://got-10k.aitestunion.com/",
    "GOT-10k_val": "http://got-10k.aitestunion.com/",
    "GOT-10k_test": "http://got-10k.aitestunion.com/",
    "TrackingNet": "https://tracking-net.org/",
    "COCO": "https://cocodataset.org/#download",
    **dict.fromkeys(
        ("OTB100", "OTB2015", "OTB50", "OTB2013"), "http://cvlab.hanyang.ac.kr/tracker_benchmark/"
    ),
    "TC128": "http://www.dabi.temple.edu/~hbling/data/TColor-128/TColor-128.html",
    **dict.fromkeys(
        ("UAV123", "UAV123_10fps", "UAV10fps", "UAV20L"), "https://cemse.kaust.edu.sa/ivul/uav123"
    ),
    "NFS30": "http://ci2cv.net/nfs/",
    "NFS240": "http://ci2cv.net/nfs/",
    "VOT2016": "https://www.votchallenge.net/vot2016/dataset.html",
    "VOT2017": "https://www.votchallenge.net/vot2017/dataset.html",
    "VOT2018": "https://www.votchallenge.net/vot2018/dataset.html",
    "VOT2018-LT": "https://www.votchallenge.net/vot2018/dataset.html",
    "VOT2019": "https://www.votchallenge.net/vot2019/dataset.html",
    "DAVIS2016": "https://davischallenge.org/davis2016/code.html",
    "DAVIS2017": "https://davischallenge.org/davis2017/code.html",
    "YouTube-VOS": "https://youtube-vos.org/dataset/",
    "Frames": "your own videos, see docs/own_videos.md",
}

MINIMUM_FREE = 1 << 30  # bytes; a pair of TransT checkpoints with its training state takes 0.5 GB


class Row(NamedTuple):
    """One thing that was looked at."""

    state: str
    what: str
    found: str
    remedy: str = ""


Check = Callable[[Settings, list[str]], Iterator[Row]]


def main() -> int:
    parser = Parser("Say what is there, what is missing and how to get it.")
    options, settings = parser.parse()
    sections: list[tuple[str, Check]] = [
        ("machine", machine),
        ("ranks", ranks),
        ("paths", paths),
        ("training data", training_data),
        ("key frames", key_frames),
        ("backbone weights", weights),
        ("benchmarks", benchmarks),
    ]
    broken = 0
    for title, check in sections:
        say(title, "title")
        for row in rows(check, settings, overrides(options)):
            broken += row.state == BROKEN
            say(f"  {paint(f'{row.state:7}', STYLES[row.state])} {row.what:28} {row.found}")
            if row.remedy:
                say(f"  {'':7} {'':28} -> {row.remedy}", "faint")
    say(f"{broken} broken" if broken else "nothing is broken", "error" if broken else "good")
    return 1 if broken else 0


def rows(check: Check, settings: Settings, given: list[str]) -> Iterator[Row]:
    """The rows of one section; a part that breaks off ends it with a row that says so."""
    try:
        yield from check(settings, given)
    except BREAKAGE as error:
        yield failure(check.__name__.replace("_", " "), error)


def failure(what: str, error: BaseException) -> Row:
    """A row for something that cannot be looked at."""
    text = " ".join(str(error).split())
    return Row(BROKEN, what, text if isinstance(error, UserError) else f"{type(error).__name__}: {text}")


def machine(settings: Settings, given: list[str]) -> Iterator[Row]:
    """Interpreter, torch, device and image decoder."""
    yield Row(GOOD, "Python", f"{platform.python_version()}  {sys.executable}")
    import torch

    yield Row(GOOD, "torch", torch.__version__)
    try:
        yield Row(GOOD, "device", f"{choose_device(settings.device)} (setting device: {settings.device})")
    except UserError as error:
        yield failure("device", error)
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        yield Row(GOOD, f"GPU {number}", f"{card.name}, {card.total_memory / 2**30:.0f} GB")
    yield from image_decoders()


def image_decoders() -> Iterator[Row]:
    """The JPEG decoders in use, of whole frames and of parts, measured beside the others that are installed."""
    from ltr.data.decoders import measure

    timings = measure()
    for part, what, best in ((False, "1280x720", "simplejpeg"), (True, "256x256 of 1280x720", "TurboJPEG")):
        name = "decoder of parts" if part else "image decoder"
        used = next(timing for timing in timings if timing.used and timing.part == part)
        others = [timing for timing in timings if not timing.used and timing.part == part]
        found = ", ".join(
            [f"{f'{used.name} {used.version}'.strip()}: {used.milliseconds:.1f} ms for {what}"]
            + [f"{other.name} {other.milliseconds:.1f}" for other in others]
        )
        different = [f"{other.name} {other.version}" for other in others if not other.agrees]
        if different:
            yield Row(
                ABSENT,
                name,
                found,
                f"other pixels by {', '.join(different)}: runs repeat only on machines that use {used.name} too",
            )
        elif used.name != best:
            remedy = f"pip install {best.lower()}, which is faster, where there is a wheel for this Python"
            yield Row(ABSENT, name, f"{found}; equal pixels", remedy)
        else:
            yield Row(GOOD, name, f"{found}; equal pixels")


def ranks(settings: Settings, given: list[str]) -> Iterator[Row]:
    """What starts several processes."""
    from pysot_toolkit.testing.launch import find_mpiexec
    from pysot_toolkit.testing.ranks import cores

    yield Row(GOOD, "CPU cores", f"{cores()}; --threads up to this many, or one per GPU")
    mpiexec = find_mpiexec()
    if mpiexec is None:
        yield Row(
            ABSENT,
            "mpiexec",
            f"none beside {sys.executable}",
            "pip install mpich mpi4py; --threads 1 needs none",
        )
    else:
        yield Row(GOOD, "mpiexec", str(mpiexec))
    try:
        import mpi4py

        yield Row(GOOD, "mpi4py", mpi4py.__version__)
    except ImportError as error:
        yield Row(ABSENT, "mpi4py", str(error), "pip install mpi4py; --threads 1 needs none")
    import torch.distributed

    if torch.distributed.is_available():
        yield Row(GOOD, "torchrun", f"backends: {', '.join(backends())}")
    else:
        yield Row(ABSENT, "torchrun", "this torch has no torch.distributed", "train on one device")


def backends() -> list[str]:
    """The communication backends of this torch."""
    import torch.distributed as dist

    return [
        name
        for name, there in (("nccl", dist.is_nccl_available()), ("gloo", dist.is_gloo_available()))
        if there
    ]


def paths(settings: Settings, given: list[str]) -> Iterator[Row]:
    """This user's file and the folder for all that changes."""
    yield Row(GOOD, "your paths", str(local_file()))
    var = var_dir(settings)
    try:
        var.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=var):
            pass
    except OSError as error:
        yield Row(
            BROKEN,
            "var",
            f"{var}: {error.strerror or error}",
            f"mend workspace_dir in {local_file()}, or --set paths.var FOLDER",
        )
        return
    free = shutil.disk_usage(var).free
    state = GOOD if free >= MINIMUM_FREE else BROKEN
    yield Row(
        state,
        "var",
        f"{var}, {free / 2**30:.1f} GB free",
        "" if state == GOOD else "free space: a checkpoint may not fit",
    )
    if settings.paths.seq_files:
        folder = resolve(settings.paths.seq_files)
        files = sorted(path.stem for path in folder.glob("*.json"))
        if files:
            yield Row(GOOD, "seq files", f"{folder}: {', '.join(files)}")
        else:
            yield Row(
                BROKEN, "seq files", f"{folder}: no .json files", f"mend seq_files_dir in {local_file()}"
            )


def variants(given: list[str]) -> Iterator[tuple[str, Settings]]:
    """All variants of all families with their merged settings."""
    import importlib
    import pkgutil

    from ltr.admin.train import variant_settings

    package = importlib.import_module("ltr.train_settings")
    for family in pkgutil.iter_modules(package.__path__):
        if family.ispkg:
            folder = importlib.import_module(f"ltr.train_settings.{family.name}")
            for variant in pkgutil.iter_modules(folder.__path__):
                if not hasattr(importlib.import_module(f"{folder.__name__}.{variant.name}"), "run"):
                    continue  # what the variants of a family share
                settings = variant_settings(family.name, variant.name, given)
                yield f"{family.name}/{variant.name}", settings


def training_data(settings: Settings, given: list[str]) -> Iterator[Row]:
    """Every data set that a variant names or that is configured."""
    from ltr.dataset.base import DATASETS, open_dataset

    specs = sorted({spec for _, merged in variants(given) for spec in merged.data.datasets})
    for spec in specs:
        name, _, split = spec.partition(":")
        if not settings.paths.train.get(name):
            yield not_configured(spec, name, "train")
            continue
        try:
            folder = dataset_dir(settings, "train", name)
            dataset = open_dataset(name, split, folder, var_dir(settings, "cache", "index"))
            frames = sum(dataset.num_frames(i) for i in range(len(dataset)))
            listed = f" of {dataset.listed}" if dataset.listed > len(dataset) else ""
            yield Row(GOOD, spec, f"{len(dataset)}{listed} videos, {frames} frames in {dataset.root}")
        except BREAKAGE as error:
            yield failure(spec, error)._replace(remedy=f"get it: {SOURCES.get(name, 'see its authors')}")
    named = {spec.partition(":")[0] for spec in specs}
    for name in sorted(set(settings.paths.train) - named):
        try:
            DATASETS.get(name)
            yield Row(GOOD, name, f"{dataset_dir(settings, 'train', name)}; no variant uses it")
        except UserError as error:
            yield failure(name, error)


def key_frames(settings: Settings, given: list[str]) -> Iterator[Row]:
    """The sampling file of every data set of every sparse variant."""
    from ltr.dataset.base import parse_spec
    from sampling.key_frames import load_key_frames, sampling_file

    wanted: dict[Path, tuple[str, str, int, list[str]]] = {}
    for variant, merged in variants(given):
        if merged.train.burn_in_epochs >= merged.train.epochs:
            continue  # every frame is labelled
        for spec in merged.data.datasets:
            name, split = parse_spec(spec)
            number = merged.sampling.num
            path = sampling_file(merged, name, split, number)
            wanted.setdefault(path, (name, split, number, []))[3].append(variant.partition("/")[2])
    for path, (name, split, number, users) in sorted(wanted.items()):
        if path.exists():
            try:
                content = load_key_frames(path, name, split, number)
                yield Row(GOOD, path.stem, f"{len(content['sparse_sample_result'])} videos, {path}")
            except UserError as error:
                yield failure(path.stem, error)
            continue
        command = (
            f"sampling/vanilla_sampling/key_frame_sampling.py --dataset {name} --split {split} --num {number}"
        )
        needed = settings.sampling.require_files and bool(settings.paths.train.get(name))
        found = f"not sampled yet (for {', '.join(users)})"
        if needed:
            yield Row(BROKEN, path.stem, found, f"sampling.require_files is set: {command}")
        else:
            yield Row(ABSENT, path.stem, found, f"made when training starts, or by {command}")


def weights(settings: Settings, given: list[str]) -> Iterator[Row]:
    """The ImageNet file of every backbone that a variant starts from."""
    import inspect

    from ltr.models.backbone.pretrained import local_weights, named_weights
    from ltr.models.backbone.registry import BACKBONES
    from ltr.models.registry import NETWORKS

    folder = resolve(settings.paths.pretrain)
    seen: set[str] = set()
    for variant, merged in variants(given):
        if not merged.network.pretrained:
            continue
        own = named_weights(merged)
        if own is not None:
            if str(own) not in seen:
                seen.add(str(own))
                there = own.is_file()
                mend = f"put it there (docs/quickstart.md), or start {variant} with --set network.allow_random True"
                yield Row(
                    GOOD if there else ABSENT,
                    own.name,
                    str(own) if there else f"no {own}",
                    "" if there else mend,
                )
            continue
        parameters = inspect.signature(NETWORKS.get(merged.network.name)).parameters
        backbone = merged.network.args.get("backbone") or parameters["backbone"].default
        if backbone in seen:
            continue
        seen.add(backbone)
        address = BACKBONES.get(backbone).imagenet
        if address is None:
            yield Row(
                BROKEN,
                backbone,
                f"has no ImageNet weights, but {variant} wants them",
                "--set network.pretrained False",
            )
            continue
        found = local_weights(address, folder)
        if found is not None:
            yield Row(GOOD, backbone, str(found))
        else:
            yield Row(
                ABSENT,
                backbone,
                f"neither in {folder} nor in torchvision's cache",
                f"fetched when training starts, or put {address} into {folder}",
            )


def benchmarks(settings: Settings, given: list[str]) -> Iterator[Row]:
    """Every benchmark that is configured, and the known ones that are not."""
    from pysot_toolkit.datasets.base import BENCHMARKS
    from pysot_toolkit.datasets.benchmarks import open_benchmark

    for name in sorted({*BENCHMARKS.names(), *settings.paths.test}):
        if not settings.paths.test.get(name):
            yield not_configured(name, name, "test")
            continue
        try:
            benchmark = open_benchmark(name, settings)
            first = Path(benchmark.sequences[0].frames[0])
            if not first.is_file():
                raise UserError(f"{first}: the first frame is missing; restore the images")
            yield Row(GOOD, name, f"{len(benchmark)} sequences, from {benchmark.source}")
        except BREAKAGE as error:
            yield failure(name, error)._replace(remedy=f"get it: {SOURCES.get(name, 'see its authors')}")


def not_configured(what: str, name: str, kind: str) -> Row:
    """A row for a data set that has no folder in the settings."""
    file = local_file()
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    remedy = f"{SOURCES.get(name, 'see its authors')}; then {kind}_dataset_dirs in {shown}, or --set paths.{kind}.{name} FOLDER"
    return Row(ABSENT, what, "no folder configured", remedy)


if __name__ == "__main__":
    run(main)
