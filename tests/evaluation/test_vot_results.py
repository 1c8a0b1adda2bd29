"""VOT's result files: every way they are written is read, every way they are broken is named with its line."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysot_toolkit.evaluation.protocol import Regions, SupervisedRun
from pysot_toolkit.evaluation.vot_results import (
    bounding_boxes,
    parse_binary,
    parse_trajectory,
    read_long_term,
    read_supervised,
)

NUMBERS = st.floats(allow_nan=True, allow_infinity=False, width=32).map(float)
LINES = st.sampled_from([0, 1, 2]) | st.sampled_from([4, 6, 8]).flatmap(
    lambda size: st.lists(NUMBERS, min_size=size, max_size=size)
)
WRITTEN = st.sampled_from(["{:.4f}", "{:.0f}", "{!r}", "{:e}", "{:+.3f}", "{:.0f}."])


def same(run: SupervisedRun, lines: list) -> None:
    assert run.code.tolist() == [3 if isinstance(line, list) else line for line in lines]
    assert run.regions.length.tolist() == [len(line) if isinstance(line, list) else 0 for line in lines]
    for row, line in zip(run.regions.values, lines):
        numbers = line if isinstance(line, list) else []
        np.testing.assert_array_equal(row[: len(numbers)], numbers)
        assert np.isnan(row[len(numbers) :]).all()


@given(
    st.lists(LINES, min_size=1, max_size=30),
    WRITTEN,
    st.sampled_from([",", "\t", ", ", "  "]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["{:d}", "{:.4f}"]),
)
def test_any_notation_is_read(lines, notation, separator, newline, code):
    words = [
        ["NaN" if math.isnan(n) else notation.format(n) for n in line]
        if isinstance(line, list)
        else [code.format(line)]
        for line in lines
    ]
    run = parse_trajectory((newline.join(separator.join(line) for line in words) + newline).encode())
    same(
        run,
        [[float(w.rstrip(".")) for w in row] if len(row) > 1 else line for row, line in zip(words, lines)],
    )


@given(st.lists(LINES, min_size=1, max_size=30))
def test_binary_trajectories_are_read(lines):
    """As the ``vot-toolkit`` package packs them: codes, rectangles and polygons in 32 bits."""
    data = struct.pack("<hI", 1, len(lines))
    for line in lines:
        if isinstance(line, int):
            data += struct.pack("<BI", 0, line)
        elif len(line) == 4:
            data += struct.pack("<B4f", 1, *line)
        else:
            data += struct.pack(f"<BH{len(line)}f", 2, len(line) // 2, *line)
    same(parse_binary(data), lines)
    with pytest.raises(ValueError, match="cut short"):
        parse_binary(data[:-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("1\n1,2,3,4\n\n2\n", "line 3: ''"),
        ("1\n1,2,x,4\n", "line 2: '1,2,x,4' is no code"),
        ("1\n1,2,3\n", "line 2: '1,2,3': a code is 0, 1 or 2"),
        ("1\n1,2,3,4,5\n", "line 2: '1,2,3,4,5': a code"),
        ("1\n3\n", "line 2: '3': a code"),
        ("1\nnan\n", "line 2: 'nan': a code"),
        ("1\n1,2,,4\n", "line 2: '1,2,,4' is no code"),
        ("1\n[1,2,3,4]\n", "line 2: '[1,2,3,4]' is no code"),
    ],
)
def test_broken_lines_are_named(text, message):
    with pytest.raises(ValueError) as raised:
        parse_trajectory(text.encode())
    assert str(raised.value).startswith(message)


BOX = "10,10,20,20"


def write(root: Path, experiment: str, files: dict[str, str]) -> None:
    folder = root / experiment / "bag"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("lines", "kind", "detail"),
    [
        ([BOX] * 8, "broken", "line 1: not 1"),
        (["1", BOX, "2", "0", BOX, BOX, BOX, BOX], "broken", "line 5: tracking goes on after a failure"),
        (["1", "2", "0", "2", "1", BOX, BOX, BOX], "broken", "line 4: tracking goes on after a failure"),
        (["1", BOX, "0", BOX, "0", BOX, BOX, BOX], "nan", "line 3 and 1 more: 0 without a failure"),
        (["1", BOX, "nan,1,1,1", BOX, BOX, BOX, BOX, BOX], "nan", "line 3"),
        (["1", BOX, "1,2,3,4,5,6,7,nan", BOX, BOX, BOX, BOX, BOX], "nan", "line 3"),
        (["1", "1,1,-2,3", "1,1,2,-3", BOX, BOX, BOX, BOX, BOX], "negative", "line 2 and 1 more"),
        (["1", "-1,-2,-3,-4,-5,-6,-7,-8", *[BOX] * 5], "short", "7 lines for 8 frames"),
        (["1", *[BOX] * 8], "long", "9 lines for 8 frames"),
        (["1", BOX, BOX, "2", "0", "0", "0", "0"], "", ""),
        (["1", "2", "0", "0", "0", "0", "1", BOX], "", ""),
    ],
)
def test_what_contradicts_the_experiment_is_named(tmp_path, lines, kind, detail):
    write(
        tmp_path, "baseline", {"bag_001.txt": "\n".join(lines), "bag_002.txt": "\n".join(["1", *[BOX] * 7])}
    )
    runs, faults = read_supervised(tmp_path, ["bag"], 8)
    assert [fault.kind for fault in faults] == ([kind] if kind else [])
    assert runs is not None and len(runs.supervised) == (1 if kind == "broken" else 2)
    for fault in faults:
        assert (
            fault.sequence == "bag" and fault.path.endswith("bag_001.txt") and fault.detail.startswith(detail)
        )
    if kind == "long":
        assert not read_supervised(tmp_path, ["bag"], 8, extra_frames=True)[1][1:]


def test_missing_results(tmp_path):
    runs, faults = read_supervised(tmp_path, ["bag", "Bag"], 8)
    assert runs is None and [fault.kind for fault in faults] == ["missing"]
    assert faults[0].path == str(tmp_path / "baseline" / "bag" / "bag_001.txt")
    write(tmp_path, "baseline", {"bag_001.txt": "?"})
    runs, faults = read_supervised(tmp_path, ["bag"], 8)
    assert runs is None and [fault.kind for fault in faults] == ["broken"]


def test_equal_files_become_one_run(tmp_path):
    """So protocols score a deterministic tracker's fifteen repetitions once."""
    one, other = "\n".join(["1", *[BOX] * 7]), "\n".join(["1", "1,2,3,4", *[BOX] * 6])
    write(tmp_path, "baseline", {f"bag_{k:03d}.txt": other if k == 2 else one for k in range(1, 5)})
    write(tmp_path, "baseline", {"bag_time.txt": "0.1,0.2,0.3,nan\n" * 8})
    runs, faults = read_supervised(tmp_path, ["bag"], 8)
    assert not faults and runs.seconds.shape == (8, 4)
    assert len(runs.supervised) == 4 and len({id(run) for run in runs.supervised}) == 2
    assert runs.supervised[0] is runs.supervised[3] and runs.supervised[1] is not runs.supervised[0]
    assert np.isnan(runs.boxes[0][0]).all() and runs.boxes[0][1:].tolist() == [[10, 10, 20, 20]] * 7


def test_binary_files_serve_where_there_is_no_text(tmp_path):
    write(tmp_path, "baseline", {"bag_001_time.value": "0.5\n\n0.25\n"})
    data = struct.pack("<hI", 1, 3) + struct.pack("<BI", 0, 1) + struct.pack("<B4f", 1, 1, 2, 3, 4) * 2
    (tmp_path / "baseline" / "bag" / "bag_001.bin").write_bytes(data)
    runs, faults = read_supervised(tmp_path, ["bag"], 3)
    assert not faults and runs.supervised[0].code.tolist() == [1, 3, 3]
    assert runs.seconds.ravel().tolist() == [0.5, 0, 0.25]  # nothing was measured in the second frame
    write(tmp_path, "baseline", {"bag_001_time.value": "fast\n"})
    runs, faults = read_supervised(tmp_path, ["bag"], 3)
    assert runs.seconds is None and [fault.kind for fault in faults] == ["times"]
    assert "line 1: 'fast'" in faults[0].detail


@given(
    st.lists(
        st.lists(st.floats(-50, 50, width=32), min_size=6, max_size=6) | st.just([]), min_size=1, max_size=5
    )
)
def test_bounding_boxes_hold_every_corner(rows):
    values = np.full((len(rows), 8), np.nan)
    for row, numbers in zip(values, rows):
        row[: len(numbers)] = numbers
    boxes = bounding_boxes(Regions(values, np.array([len(row) for row in rows])))
    for box, row in zip(boxes, rows):
        if not row:
            assert np.isnan(box).all()
            continue
        x, y = row[0::2], row[1::2]
        assert box.tolist() == [min(x), min(y), max(x) - min(x), max(y) - min(y)]


LONG = "\n".join(["1", BOX, "0", *[BOX] * 5]) + "\n"
SURE = "\n".join(["", "0.5", "nan", *["0.25"] * 5]) + "\n"


def test_long_term_results(tmp_path):
    write(
        tmp_path,
        "longterm",
        {"bag_001.txt": LONG, "bag_001_confidence.value": SURE, "bag_time.txt": "0.5\n" * 8},
    )
    runs, faults = read_long_term(tmp_path, ["bag"], 8)
    assert not faults and runs.seconds.shape == (8, 1)
    np.testing.assert_array_equal(runs.presence[0], [0, 0.5, np.nan, *[0.25] * 5])
    assert runs.supervised[0].code.tolist() == [1, 3, 0, *[3] * 5] and len(runs.boxes) == 1


@pytest.mark.parametrize(
    ("files", "kind", "detail"),
    [
        ({"bag_001_confidence.value": None}, "missing", "no confidences"),
        (
            {"bag_001_confidence.value": SURE.replace("nan", "sure")},
            "broken",
            "line 3: 'sure' is not a number",
        ),
        ({"bag_001_confidence.value": SURE[: -len("0.25\n")]}, "short", "7 confidences for 8 lines"),
        ({"bag_001_confidence.value": SURE + "0.25\n"}, "long", "9 confidences for 8 lines"),
        ({"bag_001_confidence.value": SURE.replace("nan", " ")}, "nan", "line 3: no confidence"),
        ({"bag_001_confidence.value": SURE + "\n\n"}, "", ""),
        ({"bag_001.txt": "\n".join([BOX] * 8)}, "broken", "line 1: not 1"),
        ({"bag_001.txt": "\n".join(["1", BOX, "2", *[BOX] * 5])}, "broken", "line 3: a reset"),
        ({"bag_001.txt": "\n".join(["1", BOX, "1", *[BOX] * 5])}, "broken", "line 3: a reset"),
    ],
)
def test_long_term_faults(tmp_path, files, kind, detail):
    given_files = {"bag_001.txt": LONG, "bag_001_confidence.value": SURE, **files}
    write(tmp_path, "longterm", {name: text for name, text in given_files.items() if text is not None})
    runs, faults = read_long_term(tmp_path, ["bag"], 8)
    assert [fault.kind for fault in faults] == ([kind] if kind else [])
    assert (runs is None) == (kind in ("missing", "broken"))
    assert all(fault.detail.startswith(detail) for fault in faults)
    if runs is not None:
        assert len(runs.presence[0]) == 8
