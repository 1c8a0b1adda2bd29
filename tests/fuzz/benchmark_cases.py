"""Files that testing and evaluation read: benchmarks, results of all layouts, archives."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from config.environment import load_settings
from config.settings import Settings
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.unpack import unpack
from pysot_toolkit.testing.results import check_origin, note_origin, result_fault
from pysot_toolkit.testing.results import read_boxes as read_result_boxes
from pysot_toolkit.visualization.html.provenance import checkpoint_note
from tests.datasets import folders
from tests.fuzz.case import Case, Parser
from tests.fuzz.training_cases import encoded


def _benchmark(
    name: str, pick: Callable[[Path, folders.Video], tuple[Path, bytes]]
) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        root = folder / "root"
        path, content = pick(root, folders.video_of(name, root))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        settings = load_settings([f"paths.test.{name}", str(root), "paths.var", str(folder / "var")])
        return Case(path, [content], lambda: _visit(name, settings))

    return build


def _visit(name: str, settings: Settings) -> None:
    for sequence in open_benchmark(name, settings):
        _ = sequence.attributes, sequence.annotation, sequence.frames, sequence.image_size, sequence.init_bbox


def _truth(root: Path, video: folders.Video) -> tuple[Path, bytes]:
    return video.truth, video.truth.read_bytes()


def _beside(name: str, content: bytes) -> Callable[[Path, folders.Video], tuple[Path, bytes]]:
    return lambda root, video: (video.truth.parent / name, content)


def _at(name: str, content: bytes) -> Callable[[Path, folders.Video], tuple[Path, bytes]]:
    return lambda root, video: (root / name, content)


def _seq_file(name: str) -> Callable[[Path, folders.Video], tuple[Path, bytes]]:
    def pick(root: Path, video: folders.Video) -> tuple[Path, bytes]:
        images = [f"{video.images.relative_to(root)}/{file.name}" for file in sorted(video.images.iterdir())]
        corners = 8 if name.startswith("VOT20") and not name.endswith("LT") else 4
        entry: dict[str, Any] = {
            "video_dir": video.name,
            "init_rect": [1, 2, 3, 4],
            "img_names": [image for image in images if image.endswith(".jpg")],
            "gt_rect": [
                [k + 1.5, 2, k + 30, 2, k + 30, 42, k + 1, 42][:corners] for k in range(folders.FRAMES)
            ],
            "attr": ["Occlusion"],
            "absent": [1, 1, 0, 1, 1],
            "camera_motion": [0, 1, 0, 0, 0],
            "width": 8,
            "height": 6,
        }
        return root / f"{name}.json", json.dumps({video.name: entry}).encode()

    return pick


def _mask_png(number: int = 1) -> bytes:
    array = np.zeros((20, 30), np.uint8)
    array[4:10, 3:13] = number
    image = Image.fromarray(array)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _vos(name: str, file: str) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        root = folder / "root"
        part = "480p" if name.startswith("DAVIS") else "."
        for k in range(3):
            for kind, content in ((f"Annotations/{part}/bike/{k:05d}.png", _mask_png()),
                                  (f"JPEGImages/{part}/bike/{k:05d}.jpg", encoded(".jpg"))):  # fmt: skip
                (root / kind).parent.mkdir(parents=True, exist_ok=True)
                (root / kind).write_bytes(content)
        for listed, content in (("ImageSets/2017/val.txt", b"bike\n"), ("ImageSets/480p/val.txt", b"/a/bike/0.jpg\n"),
                                ("meta.json", b'{"videos": {"bike": {"objects": {}}}}')):  # fmt: skip
            (root / listed).parent.mkdir(parents=True, exist_ok=True)
            (root / listed).write_bytes(content)
        settings = load_settings([f"paths.test.{name}", str(root)])
        path = root / file.format(part)
        return Case(path, [path.read_bytes()], lambda: _visit(name, settings))

    return build


_LINES = "".join(f"{k + 1},2,30,40\n" for k in range(folders.FRAMES)).encode()
_REGIONS = b"1\n1.5,2,30,40\n1,2,31,2,31,42,1,42\n2\n0\n"
_TIMES = b"0.01\n0.02\n0.01\n0.03\n0.01\n"


def _result(
    name: str, file: str, *contents: bytes, protocols: tuple[str, ...] = ("all",)
) -> Callable[[Path], Case]:
    """A result file of tracker T, evaluated by every protocol."""

    def build(folder: Path) -> Case:
        root = folder / "root"
        video = folders.video_of(name, root)
        if name == "GOT-10k":
            (video.truth.parent / "cover.label").write_text("8\n" * folders.FRAMES)
        tracker = folder / "var" / "results" / name / "T"
        others = {
            "OTB100": {"{0}.txt": _LINES},
            "GOT-10k": {"{0}/{0}_001.txt": _LINES, "{0}/{0}_time.txt": _TIMES},
            "VOT2018": {"baseline/{0}/{0}_001.txt": _REGIONS},
            "VOT2018-LT": {"longterm/{0}/{0}_001.txt": b"1\n" + _LINES.partition(b"\n")[2],
                           "longterm/{0}/{0}_001_confidence.value": b"\n0.9\n0.8\n0.7\n0.6\n"},
        }[name]  # fmt: skip
        for other, content in others.items():
            path = tracker / other.format(video.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        path = tracker / file.format(video.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".bin":
            path.with_suffix(".txt").unlink()
        settings = load_settings([f"paths.test.{name}", str(root), "paths.var", str(folder / "var")])

        def read() -> None:
            report = evaluate(
                settings, name, trackers=["T"], protocols=protocols, allow_missing=True, keep_overlaps=True,
                each_run=True,
            )  # fmt: skip
            for fault in report.faults["T"]:
                _one_line(fault.detail)
            fault_text = result_fault(folder / "var", name, "T", video.name, folders.FRAMES)
            _one_line(fault_text or "")
            if path.suffix == ".txt" and "_time" not in path.name and "presence" not in path.name:
                read_result_boxes(path)

        return Case(path, list(contents), read)

    return build


def _one_line(text: str) -> None:
    assert len(text.splitlines()) <= 1 and len(text) < 500, text


def _binary_regions() -> bytes:
    data = bytearray(b"\x01\x00\x05\x00\x00\x00")
    data += b"\x00\x01\x00\x00\x00" + b"\x01" + np.array([1, 2, 30, 40], "<f4").tobytes()
    data += b"\x02\x04\x00" + np.array([1, 2, 31, 2, 31, 42, 1, 42], "<f4").tobytes()
    return bytes(data + b"\x00\x02\x00\x00\x00" + b"\x00\x00\x00\x00\x00")


def _mask_result(folder: Path) -> Case:
    _vos("DAVIS2017", "meta.json")(folder)
    settings = load_settings(["paths.test.DAVIS2017", str(folder / "root"), "paths.var", str(folder / "var")])
    place = folder / "var" / "results" / "DAVIS2017" / "T" / "bike"
    place.mkdir(parents=True)
    for k in range(3):
        (place / f"{k:05d}.png").write_bytes(_mask_png())

    def read() -> None:
        report = evaluate(settings, "DAVIS2017", trackers=["T"], allow_missing=True)
        for fault in report.faults["T"]:
            _one_line(fault.detail)

    return Case(place / "00001.png", [_mask_png(), _mask_png(2)], read)


def _origin(folder: Path) -> Case:
    settings = load_settings(["paths.var", str(folder / "var"), "tracker.window_penalty", "0.4"])
    weights = folder / "T_ep0001_s.pth.tar"
    weights.write_bytes(b"weights")
    origin = check_origin(folder / "var", "OTB100", "T", "transt", weights, settings)
    note_origin(folder / "var", "OTB100", "T", origin)
    path = folder / "var" / "results" / "OTB100" / "T" / "checkpoint.json"

    def read() -> None:
        checkpoint_note(path.parent)
        check_origin(folder / "var", "OTB100", "T", "transt", weights, settings)

    return Case(path, [path.read_bytes()], read)


def _archive(folder: Path, ending: str) -> Case:
    root = folder / "root"
    video = folders.video_of("OTB100", root)
    settings = load_settings(["paths.test.OTB100", str(root), "paths.var", str(folder / "var")])
    path = folder / f"results{ending}"
    buffer = io.BytesIO()
    names = [f"OTB100/T/{video.name}.txt", "OTB100/T/README.md"]
    if ending == ".zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, _LINES)
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{ending[5:]}") as tar:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.size = len(_LINES)
                tar.addfile(entry, io.BytesIO(_LINES))

    def read() -> None:
        shutil.rmtree(folder / "var", ignore_errors=True)
        found = unpack(settings, "OTB100", path)
        evaluate(settings, "OTB100", results=found, allow_missing=True)

    return Case(path, [buffer.getvalue()], read)


def table() -> Iterator[Parser]:
    """The parsers of this room."""
    for name in (
        "OTB100",
        "TC128",
        "UAV123",
        "NFS30",
        "LaSOT",
        "TrackingNet",
        "GOT-10k",
        "VOT2018",
        "VOT2018-LT",
    ):
        yield Parser(f"benchmark {name}", _benchmark(name, _truth))
    for name in ("OTB100", "VOT2018", "LaSOT", "GOT-10k", "UAV123"):
        yield Parser(f"pysot JSON {name}", _benchmark(name, _seq_file(name)))
    frames = ",".join("01001").encode()
    for name, file, pick in (
        ("TC128", "frames", _beside("Airport_ce_frames.txt", b"1,5\n")),
        ("TC128", "attributes", _beside("Airport_ce_att.txt", b"IV, SV, OCC\n")),
        ("LaSOT", "full_occlusion.txt", _beside("full_occlusion.txt", frames)),
        ("LaSOT", "testing_set.txt", _at("testing_set.txt", b"person-1\n")),
        ("GOT-10k", "cover.label", _beside("cover.label", b"8\n7\n0\n3\n8\n")),
        ("GOT-10k", "meta_info.ini", _beside("meta_info.ini", b"[METAINFO]\nresolution: (8, 6)\nfps: 30\n")),
        ("GOT-10k", "list.txt", _at("val/list.txt", b"GOT-10k_Val_000001\n")),
        ("VOT2018", "list.txt", _at("list.txt", b"bag\n")),
        ("VOT2018", "occlusion.tag", _beside("occlusion.tag", b"0\n1\n1\n0\n0\n")),
        ("VOT2018", "sequence", _beside("sequence", b"name=bag\nfps=30\nchannels.color=color/%08d.jpg\n")),
    ):
        yield Parser(
            f"benchmark {name} {file}",
            _benchmark(name, pick),
            file not in ("sequence", "testing_set.txt", "frames"),
        )
    for name, file in (
        ("DAVIS2017", "ImageSets/2017/val.txt"), ("DAVIS2016", "ImageSets/480p/val.txt"), ("YouTube-VOS", "meta.json"),
        ("DAVIS2017", "Annotations/{}/bike/00000.png"), ("DAVIS2016", "Annotations/{}/bike/00000.png"),
        ("YouTube-VOS", "Annotations/{}/bike/00000.png"),
    ):  # fmt: skip
        memory = (1 << 30) if file.endswith(".png") else (128 << 20)
        yield Parser(
            f"benchmark {name} {Path(file).name}",
            _vos(name, file),
            file.endswith("/00000.png"),
            memory=memory,
        )

    yield Parser("result boxes", _result("OTB100", "{0}.txt", _LINES, _LINES.replace(b",", b"\t")), False)
    yield Parser("result presence", _result("OTB100", "{0}_object_presence_scores.txt", _TIMES), False)
    yield Parser("result GOT-10k", _result("GOT-10k", "{0}/{0}_001.txt", _LINES), False)
    yield Parser("result times", _result("GOT-10k", "{0}/{0}_time.txt", _TIMES), False)
    yield Parser("result VOT", _result("VOT2018", "baseline/{0}/{0}_001.txt", _REGIONS), False)
    yield Parser("result VOT times", _result("VOT2018", "baseline/{0}/{0}_time.txt", _TIMES), False)
    yield Parser(
        "result VOT binary", _result("VOT2018", "baseline/{0}/{0}_001.bin", _binary_regions()), False
    )
    long_term = b"1\n" + _LINES.partition(b"\n")[2]
    yield Parser("result VOT-LT", _result("VOT2018-LT", "longterm/{0}/{0}_001.txt", long_term), False)
    confidence = "longterm/{0}/{0}_001_confidence.value"
    yield Parser("result confidence", _result("VOT2018-LT", confidence, b"\n0.9\n0.8\n0.7\n0.6\n"), False)
    yield Parser("result masks", _mask_result, False, memory=1 << 30)
    yield Parser("result origin", _origin, False)
    for ending in (".zip", ".tar", ".tar.gz", ".tar.xz"):
        yield Parser(f"archive{ending}", lambda folder, ending=ending: _archive(folder, ending))
