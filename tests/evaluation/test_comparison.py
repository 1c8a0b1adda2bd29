"""Intervals and differences: the fast way equals drawing videos one by one, and says what it should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import UserError
from pysot_toolkit.evaluation.comparison import (
    DRAWS,
    compare,
    draw_counts,
    intervals,
    spreads,
    video_gaps,
)
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Runs, Scores, Truth
from pysot_toolkit.evaluation.report import Report, TrackerScores

BOXES = [name for name in PROTOCOLS.names() if "boxes" in PROTOCOLS.get(name).results]


def scored(protocol, seed: int, videos: int, noise: float) -> dict[str, Scores]:
    """Scores of random walks: videos of different length and difficulty."""
    generator = np.random.default_rng([seed, videos])
    table = {}
    for number in range(videos):
        frames = int(generator.integers(5, 40))
        truth = np.array([30.0, 40, 20, 24]) + generator.normal(0, 2, (frames, 4)).cumsum(axis=0) * [
            1,
            1,
            0,
            0,
        ]
        truth[:, :2] += 400
        boxes = truth + generator.normal(0, noise * generator.uniform(0.2, 3), (frames, 4))
        boxes[:, 2:] = np.abs(boxes[:, 2:]) + 1
        where = Truth(
            f"video-{number}",
            truth,
            cover=np.ones(frames, int),
            image_size=(1000, 1000),
            benchmark="OTB100",
        )
        times = generator.uniform(0.01, 0.1, (frames, 1))
        table[where.name] = protocol.score(where, Runs([boxes], times))
    return table


def report_of(protocol, tables: dict[str, dict[str, Scores]]) -> Report:
    scores = {
        name: TrackerScores(protocol.summarise(list(table.values())), {}, {}, table)
        for name, table in tables.items()
    }
    videos = list(next(iter(tables.values())))
    return Report("made up", "", videos, [protocol], {protocol.name: scores}, {name: [] for name in tables})


@pytest.mark.parametrize("name", BOXES)
@given(seed=st.integers(0, 2**16), videos=st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_resampling_equals_summarising_the_drawn_videos(name, seed, videos):
    protocol = PROTOCOLS.get(name)()
    table = list(scored(protocol, seed, videos, 4.0).values())
    counts = np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), 5).astype(float)
    fast = protocol.resampled(table, counts)
    for row, count in enumerate(counts.astype(int)):
        drawn = [score for score, times in zip(table, count) for _ in range(times)]
        values = protocol.summarise(drawn).values
        for column in protocol.columns:
            if column.better:
                assert fast[column.key][row] == pytest.approx(values[column.key], abs=1e-6, nan_ok=True)


def test_draws_are_whole_sets_of_videos_and_repeat():
    counts = draw_counts(7)
    assert counts.shape == (DRAWS, 7) and (counts.sum(axis=1) == 7).all()
    assert (counts == draw_counts(7)).all()
    assert abs(counts.mean() - 1) < 1e-12


def test_the_interval_of_a_mean_is_that_of_statistics():
    """Against the normal approximation, which holds for a mean over many videos."""
    protocol = PROTOCOLS.get("pysot-ope")()
    table = scored(protocol, 3, 200, 4.0)
    values = np.array([scores.values["auc"] for scores in table.values()])
    found = intervals(protocol, table)["auc"]
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=half / 8)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 8)


def test_pairing_finds_what_single_intervals_hide():
    """A small but steady gain over videos of very different difficulty."""
    protocol = PROTOCOLS.get("pysot-ope")()
    base = scored(protocol, 5, 60, 6.0)
    gain = {
        name: Scores({**score.values, "auc": score.values["auc"] + 0.01}, score.curves, score.frames)
        for name, score in base.items()
    }
    drawn = protocol.resampled(list(gain.values()), draw_counts(60))["auc"]
    assert np.ptp(np.percentile(drawn, [2.5, 97.5])) > 0.02  # alone, each interval is wider than the gain
    report = report_of(protocol, {"base": base, "gain": gain})
    (auc, *_) = compare(report, "base")["pysot-ope"]
    assert (auc.better, auc.worse, auc.videos) == (60, 0, 60)
    assert (
        np.ptp(
            protocol.resampled(list(gain.values()), draw_counts(60))["auc"]
            - protocol.resampled(list(base.values()), draw_counts(60))["auc"]
        )
        < 1e-9
    )


def test_differences_are_antisymmetric_and_zero_with_oneself():
    protocol = PROTOCOLS.get("pysot-ope")()
    one, other = scored(protocol, 1, 12, 3.0), scored(protocol, 1, 12, 6.0)
    report = report_of(protocol, {"one": one, "other": other, "twin": one})
    forth = {(d.tracker, d.column.key): d for d in compare(report, "other")["pysot-ope"]}
    back = {(d.tracker, d.column.key): d for d in compare(report, "one")["pysot-ope"]}
    for key in ("auc", "precision", "norm_precision"):
        there, here = forth["one", key], back["other", key]
        assert there.difference.value == pytest.approx(-here.difference.value)
        assert there.difference.low == pytest.approx(-here.difference.high)
        assert (there.better, there.worse) == (here.worse, here.better)
        assert back["twin", key].difference == (0, 0, 0) and not back["twin", key].clear
    gaps = video_gaps(protocol, one, other)
    assert [gap.value - gap.against for gap in gaps] == sorted(
        (one[v].values["auc"] - other[v].values["auc"] for v in one), reverse=True
    )
    with pytest.raises(UserError, match=r"--against othr.*other"):
        compare(report, "othr")


def test_only_common_videos_are_compared():
    protocol = PROTOCOLS.get("pysot-ope")()
    one, other = scored(protocol, 1, 5, 3.0), scored(protocol, 2, 5, 6.0)
    del one["video-1"], other["video-3"]
    report = report_of(protocol, {"one": one, "other": other})
    assert compare(report, "other")["pysot-ope"][0].videos == 3
    report.scores["pysot-ope"]["one"].sequences.clear()
    assert compare(report, "other")["pysot-ope"] == []


def test_runs_of_one_tracker():
    protocol = PROTOCOLS.get("pysot-ope")()
    tables = {f"dimp_{k:03d}": scored(protocol, k, 6, 3.0) for k in range(3)}
    report = report_of(protocol, {**tables, "other_ep0300_t": scored(protocol, 9, 6, 3.0)})
    (spread,) = spreads(report, protocol)
    values = [protocol.summarise(list(table.values())).values["auc"] for table in tables.values()]
    assert (spread.name, spread.runs) == ("dimp", 3)
    assert spread.mean["auc"] == pytest.approx(np.mean(values))
    assert spread.deviation["auc"] == pytest.approx(np.std(values, ddof=1))
