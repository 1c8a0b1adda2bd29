"""Result files: every way they are written is read, every way they are broken is named and counted."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.results import read_runs
from pysot_toolkit.evaluation.tables import fault_lines, overall_table, show
from tests.conftest import ROOT

NUMBERS = st.floats(allow_nan=True, allow_infinity=False, width=32).map(float)
WRITTEN = st.sampled_from(["{:.4f}", "{:.2f}", "{:.0f}", "{!r}", "{:e}", "{:+.3f}", "{:.0f}."])


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=20),
    WRITTEN,
    st.sampled_from([",", "\t", " ", ", ", "  "]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n", "\n\n"]),
)
def test_any_notation_reads_as_python_reads_it(rows, notation, separator, newline, end):
    words = [["NaN" if math.isnan(number) else notation.format(number) for number in row] for row in rows]
    text = newline.join(separator.join(line) for line in words) + end
    np.testing.assert_array_equal(
        parse_table(text.encode()), [[float(word.rstrip(".")) for word in line] for line in words]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n1,2,x,4\n", "line 2: '1,2,x,4'"),
        ("1,2,3,4\n1,2,3\n1,2,3,4,5\n", "line 2: 3 numbers where line 1 has 4"),
        ("1,2,3,4\n\n1,2,3,4\n", "line 2: ''"),
        ("1,2,3,4\n1,2,,4\n", "line 2: '1,2,,4'"),
        ("null,2,3,4\n", "line 1"),
        ("1,2,3,4\n\x00\x00\x00", "line 2"),
        ("[1,2],3,4\n", "line 1"),
    ],
)
def test_broken_tables_name_the_line(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_table(text.encode())


def test_an_empty_table_has_no_rows():
    for text in (b"", b" \n\n", b"\x0b", b"\xc2\xa0\n"):
        assert parse_table(text).shape == (0, 0)


@pytest.fixture
def bench(tmp_path):
    """A benchmark of three videos of eight frames, with a perfect and a shifted tracker."""
    truth = {f"video-{k}": [[10 + k, 20, 30, 15 + frame] for frame in range(8)] for k in range(1, 4)}
    table = {
        name: {
            "video_dir": name,
            "init_rect": boxes[0],
            "img_names": [f"{name}/{frame:04d}.jpg" for frame in range(8)],
            "gt_rect": boxes,
            "attr": ["FM"] if name != "video-1" else ["FM", "SV"],
        }
        for name, boxes in truth.items()
    }
    root = tmp_path / "OTB100"
    root.mkdir()
    (root / "OTB100.json").write_text(json.dumps(table))
    for tracker, shift in (("run_a", 0), ("run_b", 6), ("other", 2)):
        folder = tmp_path / "results" / "OTB100" / tracker
        folder.mkdir(parents=True)
        for name, boxes in truth.items():
            lines = [f"{x + shift},{y},{w},{h}" for x, y, w, h in boxes]
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def report_of(bench: Path, **more):
    settings = load_settings(["paths.test.OTB100", str(bench / "OTB100"), "paths.var", str(bench / "var")])
    more = {"protocols": ("pysot-ope",), "allow_missing": True, **more}
    return evaluate(settings, "OTB100", results=bench / "results", **more)


def test_whole_results(bench, capsys):
    report = report_of(bench, prefix="run_")
    assert report.trackers == ["run_a", "run_b"]
    assert report.value("run_a") == pytest.approx(20 / 21, abs=1e-12)
    assert 0 < report.value("run_b") < report.value("run_a")
    assert report.scores["pysot-ope"]["run_a"].attribute_counts == {"FM": 3, "SV": 1}
    assert not any(report.faults.values())
    show(report, per_video=True)
    text = capsys.readouterr().out
    assert "pysot-ope v1" in text and "* 0.9524" in text and "video-3" in text and "\033" not in text
    with pytest.raises(UserError, match="did you mean 'run_a'"):
        report.value("run_aa")


def test_each_damage_is_counted_named_and_never_averaged_away(bench, capsys):
    folder = bench / "results" / "OTB100" / "run_a"
    (folder / "video-1.txt").unlink()
    whole = (folder / "video-2.txt").read_text().splitlines()
    (folder / "video-2.txt").write_text("\n".join(whole[:6]))
    report = report_of(bench)
    faults = report.faults["run_a"]
    assert [(fault.sequence, fault.kind) for fault in faults] == [
        ("video-1", "missing"),
        ("video-2", "short"),
    ]
    assert report.usable("run_a") == 2
    sequences = report.scores["pysot-ope"]["run_a"].sequences
    assert set(sequences) == {"video-2", "video-3"}
    assert sequences["video-2"].values["auc"] == pytest.approx(20 / 21 * 6 / 8, abs=1e-12)
    assert report.value("run_a") == pytest.approx(20 / 21 * 7 / 8, abs=1e-12)  # the mean over what is there
    row = next(line for line in overall_table(report, report.protocols[0]).splitlines() if "run_a" in line)
    assert row.endswith("! 2/3") and "*" not in row  # marked, and not the best whatever its mean
    lines = fault_lines(faults)
    assert len(lines) == 2 and "video-1" in lines[0] and "6 lines for 8 frames" in lines[1]
    show(report)
    assert "video-1.txt" in capsys.readouterr().err
    written = report.write(bench / "reports")
    plain = json.loads((bench / "reports" / "report.json").read_text())
    assert [fault["kind"] for fault in plain["faults"]["run_a"]] == ["missing", "short"]
    assert plain["protocols"]["pysot-ope"]["version"] == 1
    videos = (bench / "reports" / "pysot-ope_videos.csv").read_text()
    assert "run_a,video-1,,,,,missing: no result file" in videos
    assert all(path.stat().st_size for path in written)


@pytest.mark.parametrize(
    ("text", "kind", "detail"),
    [
        ("1,2,3\n" * 8, "broken", "3 columns instead of 4"),
        ("1,2,3,4\n" * 7 + "1,2,three,4\n", "broken", "line 8"),
        ("", "broken", "empty"),
        ("1,2,3,4\n" * 11, "long", "11 lines for 8 frames"),
        ("1,2,3,4\n" * 5, "short", "5 lines for 8 frames"),
        ("1,2,3,4\n" * 6 + "nan,nan,nan,nan\n" * 2, "nan", "line 7 and 1 more"),
        ("1,2,3,4\n" * 6 + "1,2,-3,4\n1,2,3,4\n", "negative", "line 7"),
        ("1,2,3,4\n" * 3 + "1 2 3 4 5\n" * 5, "broken", "line 4"),
    ],
)
def test_damaged_files(tmp_path, text, kind, detail):
    (tmp_path / "video.txt").write_text(text)
    runs, faults = read_runs(tmp_path, ["video"], 8)
    assert (runs is None) == (kind == "broken")
    assert len(faults) == 1 and faults[0].kind == kind and detail in faults[0].detail


def test_nan_predictions_are_misses(bench):
    folder = bench / "results" / "OTB100" / "run_a"
    lines = (folder / "video-1.txt").read_text().splitlines()
    (folder / "video-1.txt").write_text("\n".join([*lines[:4], *["NaN,NaN,NaN,NaN"] * 4]) + "\n")
    scores = report_of(bench).scores["pysot-ope"]["run_a"].sequences["video-1"]
    assert scores.values["auc"] == pytest.approx(20 / 21 / 2, abs=1e-12)
    assert scores.values["precision"] == 0.5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "video-2.txt").unlink(), "video-2: missing: "),
        (lambda folder: (folder / "video-2.txt").write_text("1,2,3,4\n" * 3), "3 lines for 8 frames"),
        (lambda folder: (folder / "video-2.txt").write_text("1,2,3,4\n" * 9), "9 lines for 8 frames"),
        (
            lambda folder: (folder / "video-2.txt").write_text("1,2,3,4\n" * 7 + "1,2,nan,4\n"),
            "nan: .*line 8",
        ),
        (lambda folder: (folder / "video-2.txt").write_text("1,2,3,4\n" * 7 + "1,2,3,-4\n"), "line 8"),
        (
            lambda folder: (folder / "video-2.txt").write_text("1,2,3,4\n" * 7 + "1,2,x,4\n"),
            "line 8: '1,2,x,4'",
        ),
        (
            lambda folder: (folder / "video-2.txt").write_text("1,2,3,4\n" * 7 + "1;2:3;4\n"),
            "line 8: '1;2:3;4'",
        ),
        (
            lambda folder: [path.rename(folder / f"other-{path.name}") for path in [*folder.iterdir()]],
            "'other-video-1.txt' and the like are results of another benchmark",
        ),
    ],
    ids=["missing", "short", "long", "nan", "negative", "text", "separators", "another benchmark"],
)
def test_faulty_results_are_refused_by_name_unless_allowed(bench, damage, message):
    damage(bench / "results" / "OTB100" / "run_a")
    done = run_eval(bench, "-t", "run_")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (bench / "var" / "reports").exists()
    *named, last = done.stderr.splitlines()
    assert any(re.search(message, line) and "run_a" in line for line in named)
    assert "--allow-missing" in last and last.startswith("error: ")
    allowed = run_eval(bench, "-t", "run_", "--allow-missing")
    assert allowed.returncode == 0 and "! " in allowed.stdout


def run_eval(bench: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "eval.py"), "-d", "OTB100"]
    command += ["-p", str(bench / "results"), "--set", "paths.test.OTB100", str(bench / "OTB100")]
    return subprocess.run(
        [*command, "--set", "paths.var", str(bench / "var"), *options], capture_output=True, text=True
    )


def test_layouts_of_other_toolkits(tmp_path):
    """Alias names, tabs, repetitions with one damaged, times of several runs."""
    box = "1\t2\t3\t4\n"
    (tmp_path / "jogging_1.txt").write_text(box * 5)
    runs, faults = read_runs(tmp_path, ["Jogging-1", "jogging_1"], 5)
    assert runs is not None and runs.boxes[0].tolist() == [[1, 2, 3, 4]] * 5 and not faults
    folder = tmp_path / "GOT-10k_Val_000001"
    folder.mkdir()
    (folder / "GOT-10k_Val_000001_001.txt").write_text("1,2,3,4\n" * 5)
    (folder / "GOT-10k_Val_000001_002.txt").write_text("1,2,3,4\n" * 4)
    (folder / "GOT-10k_Val_000001_003.txt").write_text("?\n")
    (folder / "GOT-10k_Val_000001_time.txt").write_text("0.1,0.2,nan\n" * 5)
    runs, faults = read_runs(tmp_path, ["GOT-10k_Val_000001"], 5)
    assert runs is not None and [len(boxes) for boxes in runs.boxes] == [5, 4]
    assert runs.seconds is not None and runs.seconds.shape == (5, 3)
    assert [fault.kind for fault in faults] == ["short", "broken"]
    (folder / "GOT-10k_Val_000001_time.txt").write_text("fast\n")
    runs, faults = read_runs(tmp_path, ["GOT-10k_Val_000001"], 5)
    assert runs is not None and runs.seconds is None and faults[-1].kind == "times"


def test_a_tracker_without_one_usable_result_has_no_score(bench):
    shutil.rmtree(bench / "results" / "OTB100" / "other")
    (bench / "results" / "OTB100" / "other").mkdir()
    report = report_of(bench)
    assert math.isnan(report.value("other")) and report.trackers[-1] == "other"
    assert "! 0/3" in overall_table(report, report.protocols[0])


def test_first_boxes_alone_cannot_be_scored(bench):
    path = bench / "OTB100" / "OTB100.json"
    table = json.loads(path.read_text())
    for entry in table.values():
        entry["gt_rect"] = entry["gt_rect"][:1]
    path.write_text(json.dumps(table))
    with pytest.raises(UserError, match="evaluation server"):
        report_of(bench)


def test_processes_agree_and_the_verb_draws(bench):
    """The command line with two processes gives the numbers of one, and every file it names exists."""
    done = run_eval(bench, "-t", "run_", "-n", "2", "--vis", "--protocol", "pysot-ope", "--against", "run_b")
    assert done.returncode == 0, done.stderr
    folder = bench / "var" / "reports" / "OTB100" / "run_"
    assert {path.name for path in folder.iterdir()} == {
        "report.json",
        "comparison.json",
        "index.html",
        *(f"pysot-ope_{kind}.csv" for kind in ("overall", "attributes", "videos")),
        *(
            f"pysot-ope_{curve}.{kind}"
            for curve in ("success", "precision", "norm_precision")
            for kind in ("png", "pdf")
        ),
    }
    assert json.loads((folder / "report.json").read_text()) == json.loads(
        json.dumps(report_of(bench, prefix="run_").plain())
    )
    plain = json.loads((folder / "comparison.json").read_text())["protocols"]["pysot-ope"]
    assert plain["against"] == "run_b" and plain["differences"][0]["tracker"] == "run_a"
    assert plain["differences"][0]["better"] == 3 and "difference from run_b" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-d", "OTB10"], "did you mean 'OTB100'"),
        (["-d", "OTB100", "-p", "/nowhere"], "is neither a folder nor an archive"),
        (["-d", "OTB100", "-t", "rum"], "no tracker whose name starts with 'rum'"),
        (["-d", "OTB100", "-n", "0"], "at least one process"),
        (["-d", "OTB100", "--against", "rum_a"], "no tracker 'rum_a': did you mean 'run_a'"),
        (["-d", "OTB100", "--protocol", "pysot"], "unknown protocol 'pysot'"),
        (["-d", "OTB100", "--protocol", "got10k"], "--protocol got10k: cannot score OTB100"),
        ([], "required"),
    ],
)
def test_mistakes_end_with_one_line_and_write_nothing(bench, options, message):
    command = [
        sys.executable,
        str(ROOT / "scripts" / "eval.py"),
        "--set",
        "paths.test.OTB100",
        str(bench / "OTB100"),
    ]
    command += ["--set", "paths.var", str(bench / "var")]
    (bench / "var").mkdir()
    (bench / "var" / "results").symlink_to(bench / "results")
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr
    assert not (bench / "var" / "reports").exists()
