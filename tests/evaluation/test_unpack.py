"""Raw results as others pack them: found at any depth, and no archive can do harm."""

from __future__ import annotations

import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.evaluation import archives
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.unpack import unpack
from tests.conftest import need_shared
from tests.metrics.reference import FOLDER, settings_for

BENCH = FOLDER / "bench" / "results"
DATASETS = sorted(path.name for path in BENCH.iterdir()) if BENCH.is_dir() else []

Files = dict[str, bytes]


def write_zip(path: Path, files: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return path


def write_tar(path: Path, files: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, f"w:{path.suffix[1:].removesuffix('tar')}") as archive:
        for name, data in files:
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def tree(root: Path) -> Files:
    return {
        str((Path(folder) / name).relative_to(root)): (Path(folder) / name).read_bytes()
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
    }


def at(tmp_path: Path, dataset: str):
    options = settings_for(dataset)
    options.override(["paths.var", str(tmp_path / "var")])
    return options


@pytest.fixture(params=DATASETS or ["OTB100"])
def bench(request) -> tuple[str, Files]:
    """A benchmark and the files of all its trackers, ``{tracker}/...``, in their genuine layout."""
    return request.param, tree(need_shared("metrics", "bench", "results", request.param))


SHAPES = {
    "pysot": "{dataset}/{file}",
    "trackers": "{file}",
    "deep": "raw results (2024)/v1.2/{dataset}/{file}",
    "LaSOT's": "tracking_results/{tracker}_tracking_result/{inner}",
    "tracker first": "{tracker}/{dataset}/{inner}",
    "windows": "results\\{tracker}\\{inner}",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_the_same_files_come_out_of_every_shape(bench, tmp_path, shape, ending):
    dataset, files = bench
    named = []
    for file, data in files.items():
        tracker, _, inner = file.partition("/")
        name = SHAPES[shape].format(dataset=dataset, file=file, tracker=tracker, inner=inner)
        named.append((name.replace("/", "\\") if "\\" in name else name, data))
    named += [("README.txt", b"cite us"), ("__MACOSX/._alpha.txt", b"\0\5"), ("figures/success.pdf", b"%PDF")]
    source = (write_zip if ending == ".zip" else write_tar)(tmp_path / f"packed{ending}", named)
    root = unpack(at(tmp_path, dataset), dataset, source)
    assert tree(root) == {f"{dataset}/{file}": data for file, data in files.items()}


def test_files_of_no_folder_belong_to_a_tracker_named_as_the_archive(bench, tmp_path):
    dataset, files = bench
    tracker = sorted(files)[0].partition("/")[0]
    inner = {file.partition("/")[2]: data for file, data in files.items() if file.startswith(f"{tracker}/")}
    root = unpack(at(tmp_path, dataset), dataset, write_zip(tmp_path / "DiMP v1.2.ZIP", inner.items()))
    assert tree(root) == {f"{dataset}/DiMP v1.2/{file}": data for file, data in inner.items()}


@pytest.mark.parametrize(("dataset", "experiment"), [("VOT2018", "baseline"), ("VOT2018-LT", "longterm")])
def test_the_vot_toolkit_s_experiment_is_taken_with_its_binary_files(tmp_path, dataset, experiment):
    options = at(tmp_path, dataset)
    name = next(iter(open_benchmark(dataset, options))).name
    wanted = {
        f"T/{experiment}/{name}/{name}_{end}": b"\1"
        for end in ("001.bin", "001.txt", "time.txt", "001_time.value")
    }
    others = {
        f"T/realtime/{name}/{name}_001.bin": b"\2",
        f"T/{name}.txt": b"\3",
        f"T/{experiment}/{name}/log.txt": b"\4",
    }
    source = write_zip(
        tmp_path / "results.zip",
        [(f"workspace/results/{file}", data) for file, data in {**wanted, **others}.items()],
    )
    assert tree(unpack(options, dataset, source)) == {
        f"{dataset}/{file}": data for file, data in wanted.items()
    }


def pytracking(files: Files, prefix: str) -> Files:
    """As pytracking publishes them: networks of the same settings, tabs, prefixes before videos' names, times beside."""
    named = {}
    for file, data in files.items():
        tracker, _, inner = file.partition("/")
        name = inner.removeprefix("times/")
        named[f"{tracker}/default_000/{prefix}{name}"] = data.replace(b",", b"\t")
    return named


@pytest.mark.parametrize(("dataset", "prefix"), [("UAV123", "uav_"), ("NFS30", "nfs_"), ("LaSOT", "")])
@pytest.mark.parametrize("packed", [True, False])
def test_pytracking_s_results_score_as_ours(tmp_path, dataset, prefix, packed):
    files = tree(need_shared("metrics", "bench", "results", dataset))
    source = tmp_path / "tracking_results"
    if packed:
        write_zip(source, pytracking(files, prefix).items())
    else:
        for name, data in pytracking(files, prefix).items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
    options = at(tmp_path, dataset)
    theirs = evaluate(options, dataset, results=unpack(options, dataset, source), allow_missing=True)
    ours = evaluate(options, dataset, results=BENCH, allow_missing=True)
    assert len(ours.trackers) > 1
    for protocol, trackers in ours.scores.items():
        for tracker, scores in trackers.items():
            found = theirs.scores[protocol][f"{tracker}_default_000"]
            assert set(found.sequences) == set(scores.sequences)
            np.testing.assert_equal(found.overall.values, scores.overall.values)  # NaN, where both have none


def test_our_own_layout_is_its_own_root(bench, tmp_path):
    dataset, _ = bench
    assert unpack(at(tmp_path, dataset), dataset, BENCH) == BENCH
    assert not (tmp_path / "var").exists()


def test_the_package_s_folder_of_another_name_is_linked(bench, tmp_path):
    dataset, files = bench
    source = tmp_path / "downloads"
    source.mkdir()
    (source / "results of 2019").symlink_to(BENCH / dataset)
    root = unpack(at(tmp_path, dataset), dataset, source / "results of 2019")
    assert tree(root) == {f"{dataset}/{file}": data for file, data in files.items()}
    tracker = sorted(files)[0].partition("/")[0]
    assert (root / dataset / tracker).is_symlink()
    assert unpack(at(tmp_path, dataset), dataset, source / "results of 2019") == root
    alone = unpack(at(tmp_path, dataset), dataset, BENCH / dataset / tracker)
    assert [path.name for path in (alone / dataset).iterdir()] == [tracker]


# From here on: a small benchmark of the test's own.

BOX = b"1,2,3,4\n5,6,7,8\n"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    for name in ("Bolt", "Jogging"):
        (root / "OTB100" / name / "img").mkdir(parents=True)
        for number in (1, 2):
            (root / "OTB100" / name / "img" / f"{number:04d}.jpg").touch()
        for target in (".1", ".2") if name == "Jogging" else ("",):
            (root / "OTB100" / name / f"groundtruth_rect{target}.txt").write_bytes(BOX)
    pairs = ["paths.test.OTB100", str(root / "OTB100"), "paths.var", str(root / "var"), "paths.seq_files", ""]
    return load_settings(pairs)


def cache_of(options) -> Path:
    return Path(options.paths.var) / "cache" / "results"


def unpacked(options, source: Path) -> Files:
    return tree(unpack(options, "OTB100", source) / "OTB100")


def test_only_folders_named_after_the_data_set_count_where_there_are_any(options, tmp_path):
    files = {"OTB100/a/Bolt.txt": BOX, "OTB2013/a/Bolt.txt": b"other", "b/otb100/Jogging-1.txt": BOX}
    assert unpacked(options, write_zip(tmp_path / "all.zip", files.items())) == {
        "a/Bolt.txt": BOX,
        "b/Jogging-1.txt": BOX,
    }


def test_trackers_of_the_same_name_get_what_tells_them_apart(options, tmp_path):
    homes = ("raw/atom/default_000", "raw/atom/default_001", "raw/dimp/default_000")
    source = write_zip(tmp_path / "all.zip", [(f"{home}/Bolt.txt", home.encode()) for home in homes])
    assert unpacked(options, source) == {
        f"{home[4:].replace('/', '_')}/Bolt.txt": home.encode() for home in homes
    }
    clash = [("a/OTB100/Bolt.txt", BOX), ("OTB100/a/Bolt.txt", BOX)]
    with pytest.raises(UserError, match="'OTB100/a' and 'a/OTB100' both hold tracker 'a'; rename one"):
        unpack(options, "OTB100", write_zip(tmp_path / "clash.zip", clash))


def test_an_archive_is_extracted_once_and_again_when_it_changes(options, tmp_path):
    first = unpack(options, "OTB100", write_zip(tmp_path / "T.zip", [("Bolt.txt", BOX)]))
    (first / "OTB100" / "T" / "mark").touch()
    assert unpack(options, "OTB100", tmp_path / "T.zip") == first
    assert (first / "OTB100" / "T" / "mark").exists()
    second = unpack(options, "OTB100", write_zip(tmp_path / "T.zip", [("Bolt.txt", BOX + BOX)]))
    assert second != first and (second / "OTB100" / "T" / "Bolt.txt").read_bytes() == BOX + BOX


def test_what_holds_no_results_is_said(options, tmp_path):
    (tmp_path / "notes.rar").write_bytes(b"Rar!\x1a\x07\x00 and more")
    write_zip(tmp_path / "lasot.zip", [("T/airplane-1.txt", BOX)])
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("notes.rar", "cannot be unpacked as zip or tar"),
        ("lasot.zip", "holds no result of a video of OTB100"),
        ("empty", "holds no result of a video of OTB100"),
        ("nothing.zip", "is neither a folder nor an archive"),
    ]:
        with pytest.raises(UserError) as told:
            unpack(options, "OTB100", tmp_path / name)
        assert str(told.value).startswith(f"{tmp_path / name}: ") and message in str(told.value)


def zip_link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry, target.encode()


def tar_entry(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


ZEROS = bytes(archives.LARGEST)
ATTACKS = {
    "up.zip": ([("T/../../../OTB100/Bolt.txt", BOX)], "leads out of the folder"),
    "backslash.zip": ([("..\\..\\T\\Bolt.txt", BOX)], "leads out of the folder"),
    "absolute.zip": ([("/tmp/T/Bolt.txt", BOX)], "leads out of the folder"),
    "drive.zip": ([("C:\\T\\Bolt.txt", BOX)], "leads out of the folder"),
    "up.tar": ([("T/../../Bolt.txt", BOX)], "leads out of the folder"),
    "absolute.tar.gz": ([("/tmp/T/Bolt.txt", BOX)], "leads out of the folder"),
    "link.zip": ([zip_link("T/Jogging-1.txt", "/etc/passwd")], "is a link"),
    "link.tar": ([tar_entry("T/Jogging-1.txt", tarfile.SYMTYPE, "/etc/passwd")], "is a link"),
    "linked folder.tar": (
        [tar_entry("T", tarfile.SYMTYPE, "/tmp"), ("T/Jogging-1.txt", BOX)],
        "is a link or a device",
    ),
    "hard.tar.gz": ([tar_entry("T/Jogging-1.txt", tarfile.LNKTYPE, "T/Bolt.txt")], "is a link or a device"),
    "pipe.tar": ([tar_entry("T/Jogging-1.txt", tarfile.FIFOTYPE)], "is a link or a device"),
    "device.tar": ([tar_entry("T/Jogging-1.txt", tarfile.CHRTYPE)], "is a link or a device"),
    "terminal.zip": ([("\x1b[2J/Bolt.txt", BOX)], "is no name for a file"),
    "nameless.zip": ([("./.", BOX)], "is no name for a file"),
    "lines.tar": ([("T\nOTB/Bolt.txt", BOX)], "is no name for a file"),
    "twice.tar": ([("T//Bolt.txt", b"other")], "is there twice"),
    "case.zip": ([("./T/Jogging-1.txt", BOX), ("T/Jogging-1.txt", BOX)], "is there twice"),
    "large.zip": ([("T/Jogging-1.txt", ZEROS + b"0")], "no result has"),
    "bomb.zip": ([(f"T/{n}.txt", ZEROS) for n in range(5)], "brings more than results have"),
    "bomb.tar.xz": ([(f"T/{n}.txt", ZEROS) for n in range(5)], "brings more than results have"),
    "bomb.tar.gz": ([(f"T/{n}.txt", ZEROS) for n in range(5)], "brings more than results have"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_of_a_malicious_archive_is_extracted(options, tmp_path, name):
    files, message = ATTACKS[name]
    write = write_zip if name.endswith(".zip") else write_tar
    source = write(tmp_path / name, [*files, ("T/Bolt.txt", BOX)])
    before = tree(cache_of(options)) if cache_of(options).exists() else {}
    with pytest.raises(UserError) as told:
        unpack(options, "OTB100", source)
    assert message in str(told.value) and str(told.value).startswith(str(source))
    assert str(told.value).isprintable()
    after = tree(cache_of(options)) if cache_of(options).exists() else {}
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_the_number_of_files_is_bounded(options, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_COUNT", 10)
    ten = write_zip(tmp_path / "ten.zip", [(f"{n}/Bolt.txt", BOX) for n in range(10)])
    assert len(unpacked(options, ten)) == 10
    with pytest.raises(UserError, match="brings more than results have"):
        unpack(
            options, "OTB100", write_zip(tmp_path / "more.zip", [(f"{n}/Bolt.txt", BOX) for n in range(11)])
        )


def test_xz_in_several_streams_is_read_and_a_dictionary_beyond_bounds_is_not(options, tmp_path, monkeypatch):
    data = write_tar(tmp_path / "plain.tar", [("T/Bolt.txt", BOX), ("T/Jogging-1.txt", BOX)]).read_bytes()
    streams = [lzma.compress(data[:700]), bytes(3 << 20), lzma.compress(data[700:]), bytes(8)]
    source = tmp_path / "streams.tar.xz"
    source.write_bytes(b"".join(streams))
    assert unpacked(options, source) == {"T/Bolt.txt": BOX, "T/Jogging-1.txt": BOX}
    monkeypatch.setattr(archives, "_DICTIONARY", 1 << 20)
    for damaged in (b"".join(streams), streams[0][:-9]):
        source = tmp_path / f"{len(damaged)}.tar.xz"
        source.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be unpacked as zip or tar"):
            unpack(options, "OTB100", source)
        monkeypatch.undo()


def test_a_tracker_that_never_moves_is_no_bomb(options, tmp_path):
    """Its boxes compress far better than others."""
    still = b"123.4567,234.5678,34.5678,45.6789\n" * 100_000
    source = write_zip(tmp_path / "still.zip", [(f"{n}/Bolt.txt", still) for n in range(10)])
    assert sum(map(len, unpacked(options, source).values())) > archives._RATIO * source.stat().st_size


def test_a_size_that_lies_is_found_out(options, tmp_path):
    source = write_zip(tmp_path / "lie.zip", [("T/Bolt.txt", bytes(1 << 27))])
    data = bytearray(source.read_bytes())
    for start in (22, data.rindex(b"PK\x01\x02") + 24):  # before the data, and in the directory
        assert data[start : start + 4] == (1 << 27).to_bytes(4, "little")
        data[start : start + 4] = (100).to_bytes(4, "little")
    source.write_bytes(data)
    with pytest.raises(UserError, match="cannot be unpacked as zip or tar"):
        unpack(options, "OTB100", source)
    assert not [path for path in cache_of(options).iterdir() if path.name.startswith(".")]


def test_a_locked_archive_is_said(options, tmp_path):
    source = write_zip(tmp_path / "locked.zip", [("T/Bolt.txt", BOX)])
    data = bytearray(source.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    source.write_bytes(data)
    with pytest.raises(UserError, match="'T/Bolt.txt' is encrypted; pack it without a password"):
        unpack(options, "OTB100", source)


FOLDER_NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\."), min_size=1
).filter(lambda name: name.casefold() not in ("otb100", "times", "bolt", "__macosx"))


@given(
    above=st.lists(FOLDER_NAMES, max_size=4),
    trackers=st.sets(FOLDER_NAMES, min_size=1, max_size=4),
    ending=st.sampled_from([".zip", ".tar", ".tar.xz"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_trackers_are_found_at_any_depth(options, tmp_path_factory, above, trackers, ending, seed):
    random = np.random.default_rng(seed)
    kinds = ["Bolt.txt", "Jogging-1.txt", "jogging_2.txt", "Bolt/Bolt_001.txt", "times/Bolt_time.txt"]
    files = {
        f"{tracker}/{kind}": random.bytes(20)
        for tracker in trackers
        for kind in random.choice(kinds, 3, replace=False)
    }
    named = [("/".join([*above, file]), data) for file, data in files.items()]
    source = tmp_path_factory.mktemp("any") / f"packed{ending}"
    (write_zip if ending == ".zip" else write_tar)(source, named)
    assert unpacked(options, source) == files


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_archive_never_ends_in_a_traceback(options, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    files = [(f"T/{name}.txt", BOX * 50) for name in ("Bolt", "Jogging-1", "Jogging-2")]
    ending = data.draw(st.sampled_from([".zip", ".tar", ".tar.gz", ".tar.xz"]))
    source = (write_zip if ending == ".zip" else write_tar)(folder / f"packed{ending}", files)
    whole = source.read_bytes()
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(0, 4))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    source.write_bytes(changed)
    try:
        found = unpack(options, "OTB100", source)
    except UserError:
        return
    assert open_benchmark("OTB100", options) and (found / "OTB100").is_dir()
