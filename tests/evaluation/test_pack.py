"""Archives for servers: whole, checked, the same bytes twice; and nothing at all where a result is at fault."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.environment import load_settings
from config.errors import UserError
from ltr.data_specs.splits import lasot_test
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.pack import check_archive, pack
from pysot_toolkit.testing.one_pass import TrackResult
from pysot_toolkit.testing.results import write_result

FIRST = np.array([10.4, 20.3, 30.2, 40.1])
TRACKER = "ours"


def make_got10k(root: Path) -> Path:
    names = [f"GOT-10k_Test_{number:06d}" for number in range(1, 181)]
    for frames, name in enumerate(names, 3):
        make_images(root / "test" / name, range(1, min(frames, 6) + 1), "{:08d}.jpg")
        write_boxes(root / "test" / name / "groundtruth.txt", FIRST[None])
    (root / "test" / "list.txt").write_text("\n".join(names))
    return root


def make_trackingnet(root: Path) -> Path:
    for number in range(511):
        make_images(root / "TEST" / "frames" / f"id-{number}_0", range(3), "{}.jpg")
        write_boxes(root / "TEST" / "anno" / f"id-{number}_0.txt", FIRST[None])
    return root


def make_lasot(root: Path) -> Path:
    for name, numbers in lasot_test().items():
        for number in numbers:
            folder = root / name / f"{name}-{number}"
            extra = folder.name == "monkey-17"  # more images than annotated frames, as published
            make_images(folder / "img", range(1, 4 + extra), "{:08d}.jpg")
            write_boxes(folder / "groundtruth.txt", np.repeat(FIRST[None], 3, axis=0))
            for flags in ("full_occlusion.txt", "out_of_view.txt"):
                (folder / flags).write_text("0,0,0\n")
    return root


def make_images(folder: Path, numbers: range, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / name.format(number)).touch()


def write_boxes(path: Path, boxes: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(repr, row)) + "\n" for row in boxes.tolist()))


MAKERS = {"GOT-10k_test": make_got10k, "TrackingNet": make_trackingnet, "LaSOT": make_lasot}
TOP = {"GOT-10k_test": "", "TrackingNet": "", "LaSOT": f"{TRACKER}_tracking_result/"}


class Bench:
    """A whole benchmark with empty images, and the results of one tracker."""

    def __init__(self, dataset: str, root: Path) -> None:
        self.dataset = dataset
        folder = MAKERS[dataset](root / "data" / dataset)
        self.settings = load_settings(
            [f"paths.test.{dataset}", str(folder), "paths.var", str(root / "var"), "paths.seq_files", ""]
        )
        self.results = root / "var" / "results"
        self.sequences = list(open_benchmark(dataset, self.settings))
        random = np.random.default_rng(0)
        for sequence in self.sequences:
            frames = len(sequence.frames)
            boxes = np.concatenate([FIRST[None], random.uniform(0, 500, (frames - 1, 4))])
            result = TrackResult(boxes, np.ones(frames), random.uniform(0.001, 0.1, frames), [])
            write_result(root / "var", dataset, TRACKER, sequence.name, result)

    def file(self, index: int = 7, ending: str = "") -> Path:
        """A file of the tracker's result for one sequence; by default its boxes."""
        name = self.sequences[index].name
        folder = self.results / self.dataset / TRACKER
        if self.dataset == "GOT-10k_test":
            return folder / name / f"{name}{ending or '_001'}.txt"
        return folder / f"{name}{ending}.txt"

    def pack(self, target: Path) -> Path:
        return pack(self.settings, self.dataset, TRACKER, None, target)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], Bench]:
    benches: dict[str, Bench] = {}

    def make(dataset: str) -> Bench:
        if dataset not in benches:
            benches[dataset] = Bench(dataset, tmp_path_factory.mktemp(dataset))
        return benches[dataset]

    return make


@pytest.fixture(params=MAKERS)
def bench(request, made) -> Iterator[Bench]:
    """A benchmark whose results a test may spoil."""
    bench = made(request.param)
    kept = {path: path.read_bytes() for path in bench.results.rglob("*.txt")}
    yield bench
    for path in bench.results.rglob("*.txt"):
        if path.is_dir():
            path.rmdir()
        elif path not in kept:
            path.unlink()
    for path, data in kept.items():
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_archive_holds_our_results_byte_for_byte(bench, tmp_path):
    target = bench.pack(tmp_path / "out" / "first.zip")
    assert target == tmp_path / "out" / "first.zip"
    folder = bench.results / bench.dataset / TRACKER
    files = {
        TOP[bench.dataset] + str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*.txt")
    }
    assert contents(target) == files and list(contents(target)) == sorted(files)
    check_archive(target, bench.settings, bench.dataset)
    # As TrackingNet's own program looks for them: one file whose name contains the video's.
    for sequence in bench.sequences if bench.dataset == "TrackingNet" else ():
        assert len([name for name in files if f"{sequence.name}.txt" in name]) == 1


def test_the_same_results_make_the_same_bytes(bench, tmp_path):
    beside = pack(bench.settings, bench.dataset, TRACKER)
    assert beside == bench.results / bench.dataset / f"{TRACKER}.zip"
    first = beside.read_bytes()
    beside.unlink()
    for path in bench.results.rglob("*.txt"):
        text = path.read_text()
        path.unlink()  # another file, another time
        path.write_text(text)
    target = tmp_path / "second.zip"
    target.write_bytes(b"an older archive")
    assert bench.pack(target).read_bytes() == first
    with zipfile.ZipFile(target) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_results_of_other_toolkits_are_written_as_servers_read_them(bench, tmp_path):
    for path in bench.results.rglob("*.txt"):
        path.write_text(path.read_text().replace(",", "\t").replace("\n", "\r\n"))
    boxes = np.loadtxt(bench.file())
    bench.file().write_text(
        "\n".join(" ".join(f"{n:e}" for n in row) for row in boxes)
    )  # no newline at the end
    files = contents(bench.pack(tmp_path / "packed.zip"))
    for text in files.values():
        assert not set(text) & set(b"\t\r ;") and text.endswith(b"\n")
    name = next(name for name in files if name.endswith(bench.file().name))
    np.testing.assert_allclose(parse_table(files[name]), boxes, rtol=1e-6, atol=1e-4)


def test_the_first_box_may_be_rounded(bench, tmp_path):
    lines = bench.file().read_text().splitlines()
    bench.file().write_text("\n".join(["10\t20\t30\t40", *(line.replace(",", "\t") for line in lines[1:])]))
    check_archive(bench.pack(tmp_path / "packed.zip"), bench.settings, bench.dataset)


def rows(edit: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    return lambda path: path.write_text("".join(f"{line}\n" for line in edit(path.read_text().splitlines())))


FAULTS = {
    "missing": (Path.unlink, "1 of"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "1 of"),
    "short": (rows(lambda lines: lines[:-1]), "2 lines for 3 images"),
    "long": (rows(lambda lines: [*lines, lines[-1]]), "4 lines for 3 images"),
    "empty": (rows(lambda lines: []), "0 lines for 3 images"),
    "nan": (rows(lambda lines: [lines[0], "1,2,nan,4", *lines[2:]]), "line 2: a number that is not finite"),
    "infinite": (rows(lambda lines: [*lines[:-1], "1,inf,3,4"]), "line 3: a number that is not finite"),
    "negative": (
        rows(lambda lines: [lines[0], "1,2,-3,4", "1,2,3,-4"]),
        "line 2 and 1 more: a negative",
    ),
    "a word": (
        rows(lambda lines: [lines[0], "1,2,three,4", *lines[2:]]),
        "line 2: '1,2,three,4' is not a row",
    ),
    "five columns": (rows(lambda lines: [f"{line},1" for line in lines]), "5 columns instead of 4"),
    "another start": (rows(lambda lines: ["11.4,20.3,30.2,40.1", *lines[1:]]), "line 1: [11.4, 20.3, 30.2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_result_is_named_and_nothing_is_written(bench, tmp_path, fault):
    spoil, message = FAULTS[fault]
    index = next(i for i, sequence in enumerate(bench.sequences) if len(sequence.frames) == 3)
    path = bench.file(index)
    spoil(path)
    with pytest.raises(UserError) as told:
        bench.pack(tmp_path / "packed.zip")
    assert message in str(told.value) and path.name in str(told.value)
    assert not list(tmp_path.iterdir())


TIMES = {
    "missing": (Path.unlink, "is missing"),
    "short": (rows(lambda lines: lines[1:]), "lines for"),
    "two columns": (rows(lambda lines: [f"{line},0.1" for line in lines]), "2 columns instead of 1"),
    "nan": (rows(lambda lines: ["nan", *lines[1:]]), "line 1: a number that is not finite"),
    "negative": (rows(lambda lines: [lines[0], "-0.1", *lines[2:]]), "line 2: a time that is negative"),
}


@pytest.mark.parametrize("fault", TIMES)
@pytest.mark.parametrize("bench", ["GOT-10k_test"], indirect=True)
def test_times_are_checked_like_boxes(bench, tmp_path, fault):
    spoil, message = TIMES[fault]
    spoil(bench.file(ending="_time"))
    with pytest.raises(UserError) as told:
        bench.pack(tmp_path / "packed.zip")
    assert message in str(told.value) and bench.file(ending="_time").name in str(told.value)


@pytest.mark.parametrize("bench", ["GOT-10k_test"], indirect=True)
def test_repetitions_go_in_with_a_column_of_times_each(bench, tmp_path):
    second = bench.file(ending="_002")
    shutil.copy(bench.file(), second)
    with pytest.raises(UserError, match="1 columns instead of 2"):
        bench.pack(tmp_path / "packed.zip")
    rows(lambda lines: [f"{line},0.2" for line in lines])(bench.file(ending="_time"))
    target = bench.pack(tmp_path / "packed.zip")
    check_archive(target, bench.settings, bench.dataset)
    assert f"{second.parent.name}/{second.name}" in contents(target) and len(contents(target)) == 361


@pytest.mark.parametrize("bench", ["LaSOT"], indirect=True)
@pytest.mark.parametrize(("frames", "fits"), [(3, True), (4, True), (5, False)])
def test_a_video_with_images_beyond_its_annotation_may_have_either_length(bench, tmp_path, frames, fits):
    index = next(i for i, sequence in enumerate(bench.sequences) if sequence.extra_frames)
    write_boxes(bench.file(index), np.repeat(FIRST[None], frames, axis=0))
    if fits:
        check_archive(bench.pack(tmp_path / "packed.zip"), bench.settings, bench.dataset)
    else:
        with pytest.raises(UserError, match="5 lines for 4 images"):
            bench.pack(tmp_path / "packed.zip")


def test_what_cannot_be_packed_is_said(made, tmp_path):
    bench = made("TrackingNet")
    for arguments, message in [
        (
            ("OTB100", TRACKER, None, tmp_path / "a.zip"),
            "those that have: GOT-10k, GOT-10k_test, TrackingNet",
        ),
        (("TrackingNet", "our", None, tmp_path / "a.zip"), "did you mean 'ours'?"),
        (("TrackingNet", TRACKER, tmp_path, tmp_path / "a.zip"), "no results there"),
        (("TrackingNet", TRACKER, None, tmp_path / "a.tar"), "ends in .zip"),
    ]:
        with pytest.raises(UserError) as told:
            pack(bench.settings, *arguments)
        assert message in str(told.value)
    assert not list(tmp_path.iterdir())


def test_a_part_of_a_benchmark_is_no_submission(tmp_path):
    for name in ("GOT-10k_Test_000001", "GOT-10k_Val_000001"):
        root = tmp_path / name
        make_images(root / name, range(1, 4), "{:08d}.jpg")
        write_boxes(root / name / "groundtruth.txt", np.repeat(FIRST[None], 3, axis=0))
        (root / "list.txt").write_text(name)
        options = load_settings(["paths.test.GOT-10k", str(root), "paths.seq_files", ""])
        found = "1 videos" if "Test" in name else "'GOT-10k_Val_000001'"
        with pytest.raises(UserError, match=f"holds {found}, an archive of GOT-10k the 180 of its test set"):
            pack(options, "GOT-10k", TRACKER, None, tmp_path / "a.zip")


def repacked(source: Path, target: Path, edit: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in edit(contents(source)).items():
            archive.writestr(name, data)
    return target


def test_archives_of_others_are_checked(bench, tmp_path):
    ours = bench.pack(tmp_path / "ours.zip")
    name = next(name for name in contents(ours) if name.endswith(bench.file().name))

    def check(edit: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
        check_archive(repacked(ours, tmp_path / "theirs.zip", edit), bench.settings, bench.dataset)

    folders = {f"{name.rpartition('/')[0]}/" for name in contents(ours) if "/" in name}
    check(lambda files: {**dict.fromkeys(folders, b""), **files})  # as shutil.make_archive writes them
    for edit, message in [
        (lambda files: {key: data for key, data in files.items() if key != name}, "1 of"),
        (lambda files: {**files, name: files[name].replace(b",", b"\t")}, "not separated by commas"),
        (lambda files: {**files, name: files[name].replace(b"\n", b"\r\n\r\n", 1)}, "line 2"),
        (lambda files: {**files, f"{TOP[bench.dataset]}readme.txt": b"ours"}, "'readme.txt' is no result"),
        (lambda files: {**files, name: b"0" * (1 << 27)}, "too large"),
        (lambda files: {f"results/{key}": data for key, data in files.items()}, f"{len(bench.sequences)} of"),
    ]:
        with pytest.raises(UserError) as told:
            check(edit)
        assert message in str(told.value) and "theirs.zip" in str(told.value)
    if bench.dataset == "LaSOT":
        with pytest.raises(UserError, match="2 folders or files at the top"):
            check(lambda files: {**files, "other/airplane-1.txt": b""})


def test_a_file_twice_or_locked_is_refused(made, tmp_path):
    bench = made("TrackingNet")
    ours = bench.pack(tmp_path / "ours.zip")
    with zipfile.ZipFile(ours, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"{bench.sequences[0].name}.txt", b"1,2,3,4\n")
    with pytest.raises(UserError, match=r"id-0_0\.txt: is there twice"):
        check_archive(ours, bench.settings, bench.dataset)
    data = bytearray(bench.pack(ours).read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of encryption, in the directory's last entry
    ours.write_bytes(data)
    with pytest.raises(UserError, match="encrypted"):
        check_archive(ours, bench.settings, bench.dataset)


@pytest.fixture(scope="module")
def packed(made, tmp_path_factory) -> Path:
    return made("TrackingNet").pack(tmp_path_factory.mktemp("packed") / "ours.zip")


@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_archive_is_an_error_or_whole(made, packed, data):
    """Whatever a transfer does to it: one line for the user, or the results are the same after all."""
    bench, whole = made("TrackingNet"), packed.read_bytes()
    cut = data.draw(st.integers(0, len(whole)), "length")
    changed = bytearray(whole[:cut] if data.draw(st.booleans(), "cut") else whole)
    for _ in range(data.draw(st.integers(0, 3), "changes")):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    damaged = packed.with_name("damaged.zip")
    damaged.write_bytes(changed)
    try:
        check_archive(damaged, bench.settings, bench.dataset)
    except UserError as error:
        assert "damaged.zip" in str(error)
    else:
        assert contents(damaged) == contents(packed)
