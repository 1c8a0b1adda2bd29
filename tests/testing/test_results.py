"""Result files: layouts, completeness, origin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from config.settings import open_node
from pysot_toolkit.testing.results import (
    TrackResult,
    check_origin,
    note_origin,
    result_fault,
    result_file,
    time_file,
    write_result,
)


def result(count: int) -> TrackResult:
    boxes = np.arange(4.0 * count).reshape(count, 4) / 3
    return TrackResult(boxes, np.ones(count), np.full(count, 0.0125), [])


def test_each_benchmark_has_its_own_layout(tmp_path):
    for dataset in ("OTB100", "LaSOT", "UAV123", "NFS30", "TrackingNet"):
        path = result_file(tmp_path, dataset, "v_ep0400_t", "seq-1")
        assert path == tmp_path / "results" / dataset / "v_ep0400_t" / "seq-1.txt"
    path = result_file(tmp_path, "GOT-10k", "v_ep0400_t", "GOT-10k_Val_000001")
    folder = tmp_path / "results" / "GOT-10k" / "v_ep0400_t" / "GOT-10k_Val_000001"
    assert path == folder / "GOT-10k_Val_000001_001.txt"
    assert time_file(path) == folder / "GOT-10k_Val_000001_time.txt"


def test_lines_have_four_decimals_and_got10k_times(tmp_path):
    write_result(tmp_path, "GOT-10k", "a", "s", result(2))
    path = result_file(tmp_path, "GOT-10k", "a", "s")
    assert path.read_text() == "0.0000,0.3333,0.6667,1.0000\n1.3333,1.6667,2.0000,2.3333\n"
    assert time_file(path).read_text() == "0.01250000\n0.01250000\n"
    write_result(tmp_path, "OTB100", "a", "s", result(2))
    assert sorted(p.name for p in (tmp_path / "results" / "OTB100" / "a").iterdir()) == ["s.txt"]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ""])
def test_a_name_never_leaves_the_result_folder(tmp_path, name):
    for names in (("OTB100", name, "s"), ("OTB100", "t", name), (name, "t", "s")):
        with pytest.raises(UserError):
            result_file(tmp_path, *names)


@given(frames=st.integers(2, 6), cut=st.integers(1, 60))
def test_a_cut_file_is_never_taken_for_a_result(tmp_path_factory, frames, cut):
    var = tmp_path_factory.mktemp("var")
    write_result(var, "OTB100", "a", "s", result(frames))
    path = result_file(var, "OTB100", "a", "s")
    assert result_fault(var, "OTB100", "a", "s", frames) is None
    text = path.read_text()
    path.write_text(text[: -min(cut, len(text))])
    assert str(path) in (result_fault(var, "OTB100", "a", "s", frames) or "")


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


def test_got10k_without_its_times_is_incomplete(tmp_path):
    write_result(tmp_path, "GOT-10k", "a", "s", result(3))
    times = time_file(result_file(tmp_path, "GOT-10k", "a", "s"))
    times.unlink()
    assert "is missing" in (result_fault(tmp_path, "GOT-10k", "a", "s", 3) or "")


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
