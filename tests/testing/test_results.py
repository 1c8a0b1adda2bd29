"""Result files: layouts, completeness, origin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from config.settings import open_node
from pysot_toolkit.datasets.base import BENCHMARKS
from pysot_toolkit.testing.one_pass import TrackResult
from pysot_toolkit.testing.results import (
    check_origin,
    note_origin,
    read_boxes,
    result_fault,
    result_file,
    write_result,
)

LAYOUTS = {  # a benchmark of each, and the files of sequence "s"
    "OTB100": ["s.txt"],
    "GOT-10k": ["s/s_001.txt", "s/s_time.txt"],
    "VOT2018": ["baseline/s/s_001.txt", "baseline/s/s_time.txt"],
    "VOT2018-LT": ["longterm/s/s_001.txt", "longterm/s/s_001_confidence.value", "longterm/s/s_time.txt"],
}


def result(count: int) -> TrackResult:
    """Boxes on all frames but those that a failure on the third one costs."""
    boxes = np.arange(4.0 * count).reshape(count, 4) / 3
    code = np.array(([1, 3, 2, 0, 0, 0, 0, 1] + [3] * count)[:count], np.int8)
    return TrackResult(boxes, np.linspace(1, 0.5, count), np.full(count, 0.0125), [], code)


def test_each_benchmark_has_its_own_layout(tmp_path):
    for dataset in ("OTB100", "LaSOT", "UAV123", "NFS30", "TrackingNet"):
        path = result_file(tmp_path, dataset, "v_ep0400_t", "seq-1")
        assert path == tmp_path / "results" / dataset / "v_ep0400_t" / "seq-1.txt"
    for dataset, files in LAYOUTS.items():
        write_result(tmp_path, dataset, "a", "s", result(3))
        folder = tmp_path / "results" / dataset / "a"
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == files
        assert result_file(tmp_path, dataset, "a", "s") == folder / files[0]


@pytest.mark.parametrize(
    "dataset", [name for name in BENCHMARKS.names() if BENCHMARKS.get(name).results == "masks"]
)
def test_a_benchmark_of_masks_is_refused(tmp_path, dataset):
    with pytest.raises(UserError, match=f"{dataset}: its results are masks"):
        result_file(tmp_path, dataset, "a", "s")


def test_lines_have_four_decimals_and_got10k_times(tmp_path):
    write_result(tmp_path, "GOT-10k", "a", "s", result(2))
    path = result_file(tmp_path, "GOT-10k", "a", "s")
    assert path.read_text() == "0.0000,0.3333,0.6667,1.0000\n1.3333,1.6667,2.0000,2.3333\n"
    assert path.with_name("s_time.txt").read_text() == "0.01250000\n0.01250000\n"


def test_vot_lines_are_codes_and_regions(tmp_path):
    write_result(tmp_path, "VOT2018", "a", "s", result(9))
    path = result_file(tmp_path, "VOT2018", "a", "s")
    lines = path.read_text().splitlines()
    assert lines == ["1", "1.3333,1.6667,2.0000,2.3333", *"20000", "1", "10.6667,11.0000,11.3333,11.6667"]
    boxes = read_boxes(path)
    assert np.isnan(boxes[[0, 2, 3, 4, 5, 6, 7]]).all()
    np.testing.assert_allclose(boxes[[1, 8]], result(9).bboxes[[1, 8]], atol=1e-4)


def test_vot_long_term_has_a_confidence_for_each_frame_but_the_first(tmp_path):
    write_result(tmp_path, "VOT2018-LT", "a", "s", result(3))
    path = result_file(tmp_path, "VOT2018-LT", "a", "s")
    assert path.read_text() == "1\n1.3333,1.6667,2.0000,2.3333\n2.6667,3.0000,3.3333,3.6667\n"
    assert path.with_name("s_001_confidence.value").read_text() == "\n0.75\n0.5\n"


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ""])
def test_a_name_never_leaves_the_result_folder(tmp_path, name):
    for names in (("OTB100", name, "s"), ("OTB100", "t", name), (name, "t", "s")):
        with pytest.raises(UserError):
            result_file(tmp_path, *names)


@given(
    dataset=st.sampled_from(sorted(LAYOUTS)),
    part=st.integers(0, 2),
    frames=st.integers(2, 12),
    data=st.data(),
)
def test_a_cut_file_is_never_taken_for_a_result(tmp_path_factory, dataset, part, frames, data):
    var = tmp_path_factory.mktemp("var")
    write_result(var, dataset, "a", "s", result(frames))
    assert result_fault(var, dataset, "a", "s", frames) is None
    files = LAYOUTS[dataset]
    path = var / "results" / dataset / "a" / files[part % len(files)]
    text = path.read_text()
    path.write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    assert str(path) in (result_fault(var, dataset, "a", "s", frames) or "")


@pytest.mark.parametrize(
    "text", ["1\n1,2,3\n", "0\n1,2,3,4\n", "1\n4\n", "1\nx,2,3,4\n", "1\n1,2,3,4,5\n", "1,2,3,4\n" * 2]
)
@pytest.mark.parametrize("dataset", ["VOT2018", "VOT2018-LT"])
def test_a_broken_vot_result_is_named(tmp_path, dataset, text):
    write_result(tmp_path, dataset, "a", "s", result(2))
    path = result_file(tmp_path, dataset, "a", "s")
    path.write_text(text)
    assert str(path) in (result_fault(tmp_path, dataset, "a", "s", 2) or "")


@pytest.mark.parametrize("text", ["1,2,3,4\n1,2,3\n", "1,2,3,4\nx,2,3,4\n", "\xff", "", "1,2,3,4\n" * 3])
def test_a_broken_result_is_named(tmp_path, text):
    path = result_file(tmp_path, "OTB100", "a", "s")
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    assert str(path) in (result_fault(tmp_path, "OTB100", "a", "s", 2) or "")


def test_other_toolkits_results_count_as_done(tmp_path):
    path = result_file(tmp_path, "OTB100", "a", "s")
    path.parent.mkdir(parents=True)
    path.write_text("1\t2\t3\t4\n5\t6\t7\tnan\n")
    assert result_fault(tmp_path, "OTB100", "a", "s", 2) is None
    assert result_fault(tmp_path, "OTB100", "a", "other", 2) == ""
    path = result_file(tmp_path, "VOT2018", "a", "s")
    path.parent.mkdir(parents=True)
    path.write_text("1\n1,2,5,2,5,6,1,6\n1,2,3,4\n")  # polygons, and no file of times
    assert result_fault(tmp_path, "VOT2018", "a", "s", 3) is None
    path.with_name("s_time.txt").write_text("0.1,0.2\n" * 3)  # of two repetitions
    assert result_fault(tmp_path, "VOT2018", "a", "s", 3) is None
    np.testing.assert_array_equal(read_boxes(path), [[np.nan] * 4, [1, 2, 4, 4], [1, 2, 3, 4]])


@pytest.mark.parametrize("dataset", ["GOT-10k", "VOT2018-LT"])
def test_a_result_without_a_file_that_its_scores_need_is_incomplete(tmp_path, dataset):
    write_result(tmp_path, dataset, "a", "s", result(3))
    (tmp_path / "results" / dataset / "a" / LAYOUTS[dataset][1]).unlink()
    assert "is missing" in (result_fault(tmp_path, dataset, "a", "s", 3) or "")


def test_results_of_other_weights_are_refused(tmp_path):
    checkpoint = tmp_path / "TransT_ep0400_t.pth.tar"
    checkpoint.write_bytes(b"one")
    plain, changed = open_node(tracker=open_node()), open_node(tracker=open_node(window_penalty=0.3))
    origin = check_origin(tmp_path, "OTB100", "a", "transt", checkpoint, plain)
    assert not (tmp_path / "results").exists()
    note_origin(tmp_path, "OTB100", "a", origin)
    check_origin(tmp_path, "OTB100", "a", "transt", checkpoint, plain)
    with pytest.raises(UserError, match="--name"):
        check_origin(tmp_path, "OTB100", "a", "transt", checkpoint, changed)
    checkpoint.write_bytes(b"two")
    with pytest.raises(UserError, match="remove the folder"):
        check_origin(tmp_path, "OTB100", "a", "transt", checkpoint, plain)
