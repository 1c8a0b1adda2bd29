"""``scripts/playback.py`` on real videos: what is asked for is written, what cannot be is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from config.environment import load_settings
from pysot_toolkit.datasets import open_benchmark
from tests.conftest import ROOT


@pytest.fixture
def played(shared, tmp_path):
    """Runs the verb on OTB100's real videos with the results of two made-up trackers; the target folder too."""
    folder = shared("sequences", "OTB100")
    benchmark = open_benchmark("OTB100", load_settings(["paths.test.OTB100", str(folder)]))
    video = min(benchmark, key=lambda sequence: len(sequence.ground_truth))
    for shift, tracker in ((0, "near"), (9, "far")):
        path = tmp_path / "results" / "OTB100" / tracker / f"{video.name}.txt"
        path.parent.mkdir(parents=True)
        np.savetxt(path, video.ground_truth + shift, delimiter=",", fmt="%.2f")

    def play(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "playback.py"), "-d", "OTB100"]
        command += ["-p", str(tmp_path / "results"), "--set", "paths.test.OTB100", str(folder)]
        command += ["--set", "paths.var", str(tmp_path / "var"), *options]
        return subprocess.run(command, capture_output=True, text=True)

    return play, video, tmp_path / "var" / "reports" / "OTB100" / "playback"


def test_a_video_and_a_sheet_of_the_chosen_video(played):
    play, video, target = played
    done = play("-t", "near", "far", "-v", video.name)
    assert done.returncode == 0, done.stderr
    written = Path(done.stdout.strip())
    assert written == target / f"{video.name}.mp4"
    reader = cv2.VideoCapture(str(written))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == len(video.frames)
    done = play("-t", "near", "-v", video.name, "--sheet")
    assert done.returncode == 0 and cv2.imread(done.stdout.strip()) is not None
    assert {path.suffix for path in target.iterdir()} == {".mp4", ".png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-t", "neer"], "no tracker 'neer': did you mean 'near'"),
        (["-v", "nothing"], "has no sequence 'nothing'"),
        (["-t", "near"], "no result file; run scripts/test.py for it"),  # it tracked one video of several
        (["-t", *(f"tracker{k}" for k in range(9))], "9 trackers"),
    ],
)
def test_mistakes_are_one_line(played, options, message):
    play, _, _ = played
    done = play(*options)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr
