"""Pictures are written, readable and show what they should; what cannot be drawn is refused or left out."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from matplotlib.text import Text

from config.errors import UserError
from pysot_toolkit.datasets.base import Annotation, Sequence
from pysot_toolkit.evaluation.ope import OnePassEvaluation
from pysot_toolkit.visualization import overlay
from pysot_toolkit.visualization.charts import accuracy_robustness, radar, ranked_bars, speed_accuracy
from pysot_toolkit.visualization.plots import Line, curve_figure
from pysot_toolkit.visualization.style import write_figure

NUMBERS = {"a": 0, "b": 1}


@pytest.fixture
def sequence(tmp_path):
    """Twelve grey frames of 161 x 90 with a box that moves right; hidden in the last."""
    frames = []
    for number in range(12):
        frames.append(str(tmp_path / f"{number:04d}.jpg"))
        cv2.imwrite(frames[-1], np.full((90, 161, 3), 128, np.uint8))
    truth = np.array([[10.0 + 5 * k, 30, 20, 25] for k in range(12)])
    present = np.arange(12) < 11
    return Sequence("video", lambda: frames, lambda: Annotation(truth, present))


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(image.astype(int) - colour).max(axis=-1) < 12).any())


def test_boxes_are_drawn_where_they_are(sequence):
    prediction = {"tracker": sequence.ground_truth + np.array([0, 20, 0, 0])}
    image = overlay.draw_frame(sequence, 3, prediction)
    assert image.shape == (90, 161, 3)
    assert tuple(image[40, 25]) == overlay._TRUTH and tuple(image[60, 45]) == overlay._TRACKERS[0]
    hidden = overlay.draw_frame(sequence, 11, prediction)
    assert not has_colour(hidden, overlay._TRUTH) and has_colour(hidden, overlay._TRACKERS[0])


@pytest.mark.parametrize("bad", [[np.nan] * 4, [5, 5, 0, 10], [5, 5, -3, 10]])
def test_boxes_that_are_none_are_left_out(sequence, bad):
    image = overlay.draw_frame(sequence, 11, {"tracker": np.tile(np.array(bad, float), (12, 1))})
    assert not has_colour(image, overlay._TRACKERS[0])


def test_far_boxes_and_short_results_draw(sequence):
    overlay.draw_frame(
        sequence, 2, {"far": np.tile([-1e12, 1e300, 1e15, 1e9], (12, 1)), "short": np.empty((0, 4))}
    )


def test_contact_sheet(sequence, tmp_path):
    path = overlay.contact_sheet(
        tmp_path / "out" / "sheet.png", sequence, {"tracker": sequence.ground_truth}, tile_width=100
    )
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert image.shape[1] == 4 * 104 - 4 and has_colour(image, overlay._TRUTH)


class NoWriter:
    """OpenCV's writer on a machine without the codec."""

    def __init__(self, *_):
        pass

    @staticmethod
    def fourcc(*_):
        return 0

    def isOpened(self):
        return False

    def release(self):
        pass


@pytest.mark.parametrize("works", [True, False])
def test_video_or_a_contact_sheet_in_its_place(sequence, tmp_path, monkeypatch, works):
    if not works:
        monkeypatch.setattr(overlay.cv2, "VideoWriter", NoWriter)
    path = overlay.overlay_video(tmp_path / "out" / "video.mp4", sequence, {}, width=160)
    assert path.suffix == (".mp4" if works else ".png") and path.stat().st_size
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    if works:
        video = cv2.VideoCapture(str(path))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 12


def test_a_missing_frame_is_named(sequence, tmp_path):
    (tmp_path / "0003.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0003.jpg: is missing or no image"):
        overlay.draw_frame(sequence, 3, {})


@pytest.mark.parametrize("count", [1, 20])
def test_curves_are_drawn_for_one_tracker_and_for_many(tmp_path, count):
    curve = OnePassEvaluation.curves[0]
    lines = {
        f"tracker_{k}": Line(curve.thresholds, np.linspace(1 - k / 40, 0, 21), 0.5 - k / 100, k)
        for k in range(count)
    }
    png, pdf = write_figure(curve_figure(curve, lines, "Success on LaSOT (280 videos)"), tmp_path / "plot")
    image = cv2.imread(str(png))
    assert image.shape[0] == 960 and image.shape[1] == (1280 if count == 1 else 1960)
    assert pdf.read_bytes().startswith(b"%PDF")
    again = dict(reversed(lines.items()))
    files = write_figure(curve_figure(curve, again, "Success on LaSOT (280 videos)"), tmp_path / "again")
    # The legend is sorted by score, not by the order given, and nothing in the files depends on the time.
    assert [path.read_bytes() for path in files] == [png.read_bytes(), pdf.read_bytes()]


@pytest.mark.parametrize(
    "figure",
    [
        radar(
            ["fast motion", "blur", "out of view"],
            {"a": [0.5, 0.7, 0.2], "b": [0.4, math.nan, 0.3]},
            "t",
            "AUC",
            NUMBERS,
        ),
        accuracy_robustness({"a": (0.9, 0.6), "b": (0.2, 0.5)}, "t", NUMBERS),
        ranked_bars({"a": 0.4, "b": 0.3}, "t", "EAO", {"a": (0.35, 0.45)}, NUMBERS),
        speed_accuracy({"a": (120.0, 0.6), "b": (4.0, 0.7)}, "t", "AUC", NUMBERS),
    ],
    ids=["radar", "ar", "bars", "speed"],
)
def test_charts_show_every_tracker(figure, tmp_path):
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert {"a", "b", "t"} <= texts
    png, pdf = write_figure(figure, tmp_path / "chart")
    assert png.read_bytes().startswith(b"\x89PNG") and pdf.read_bytes().startswith(b"%PDF")
