"""What holds for every benchmark of boxes or polygons: it opens fast, reads its layout, and names what is damaged."""

from __future__ import annotations

import numpy as np
import pytest

from config.environment import ROOT
from config.errors import UserError
from pysot_toolkit.datasets.base import BENCHMARKS
from scripts.doctor import SOURCES
from tests.datasets.folders import FRAMES, VIDEOS, opened, video_of


def by_boxes() -> list[str]:
    return [name for name in BENCHMARKS.names() if BENCHMARKS.get(name).results != "masks"]


def damage(name: str, root) -> str:
    """What the reader says of the video's frames or ground truth; it must be one line."""
    with pytest.raises(UserError) as caught:
        _ = opened(name, root).sequences[0].frames
    assert "\n" not in str(caught.value) and "restore" in str(caught.value)
    return str(caught.value)


def test_all_are_covered_here_and_documented():
    assert sorted(VIDEOS) == by_boxes()
    table = (ROOT / "docs" / "datasets.md").read_text()
    for name in BENCHMARKS.names():
        assert f"`{name}`" in table, f"docs/datasets.md does not name {name}"
        assert name in SOURCES, f"scripts/doctor.py does not say where to get {name}"


@pytest.mark.parametrize("name", sorted(VIDEOS))
def test_layout_is_read(tmp_path, name):
    video = video_of(name, tmp_path)
    benchmark = opened(name, tmp_path)
    assert [sequence.name for sequence in benchmark] == [video.name]
    sequence = benchmark[video.name]
    assert [path.rsplit("/", 1)[0] for path in sequence.frames] == [str(video.images)] * FRAMES
    assert sequence.frames == sorted(sequence.frames) and sequence.ground_truth.shape == (FRAMES, 4)
    assert np.isfinite(sequence.ground_truth).all() and sequence.image_size == (8, 6)
    assert benchmark.layout.result_names(video.name)[0] == video.name


@pytest.mark.parametrize("name", sorted(VIDEOS))
def test_opening_reads_neither_images_nor_ground_truth(tmp_path, name):
    """A benchmark of many videos opens without touching what is inside them, so what is broken shows later."""
    video = video_of(name, tmp_path)
    video.truth.write_bytes(b"\xff\x00 not a table")
    for path in video.images.glob("*.jpg"):
        path.write_bytes(b"")
    benchmark = opened(name, tmp_path)
    assert len(benchmark) == 1
    assert f"{video.truth}: line 1" in damage(name, tmp_path)


@pytest.mark.parametrize("name", sorted(VIDEOS))
def test_damage_is_named(tmp_path, name):
    video = video_of(name, tmp_path)
    whole = video.truth.read_text()
    line = video.line(1, 2, 31, 42)
    for change, annotated in ((whole + 2 * line, FRAMES + 2), (whole[: -2 * len(line)], FRAMES - 2)):
        video.truth.write_text(change)
        text = damage(name, tmp_path)
        assert f"{FRAMES} images but {annotated} annotated" in text and str(video.images) in text
    video.truth.write_text(whole + line.replace("31", "x31"))
    assert f"{video.truth}: line {FRAMES + 1}" in damage(name, tmp_path)
    video.truth.write_text(whole + "1,2\n")
    assert f"{video.truth}: line {FRAMES + 1}: 2 numbers" in damage(name, tmp_path)
    video.truth.write_text(whole)
    for path in video.images.glob("*.jpg"):
        path.unlink()
    assert f"{video.images}: holds no images" in damage(name, tmp_path)


@pytest.mark.parametrize("name", sorted(VIDEOS))
def test_nan_is_absence_only_where_the_benchmark_says_so(tmp_path, name):
    video = video_of(name, tmp_path)
    lines = video.truth.read_text().splitlines(keepends=True)
    lines[2] = video.line(*[float("nan")] * 4)
    video.truth.write_text("".join(lines))
    if BENCHMARKS.get(name).nan_is_absent:
        truth = opened(name, tmp_path)[video.name].ground_truth
        assert np.isnan(truth[2]).all() and np.isfinite(np.delete(truth, 2, axis=0)).all()
    else:
        assert f"{video.truth}: line 3: holds a number that is not finite" in damage(name, tmp_path)
    lines[2] = video.line(*[float("inf")] * 4)
    video.truth.write_text("".join(lines))
    assert f"{video.truth}: line 3" in damage(name, tmp_path)


@pytest.mark.parametrize("name", sorted(VIDEOS))
def test_a_missing_list_or_folder_is_named(tmp_path, name):
    with pytest.raises(UserError) as caught:
        opened(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    video = video_of(name, tmp_path)
    if video.listed is None:
        return
    video.listed.write_text(f"{video.name}\nelsewhere\n")
    with pytest.raises(UserError, match=r"lists 'elsewhere' \(1 in all\), which is not beside it"):
        opened(name, tmp_path)
    video.listed.write_text("")
    with pytest.raises(UserError, match=f"no sequences of {name}"):
        opened(name, tmp_path)
    video.listed.unlink()
    with pytest.raises(UserError, match=r"list\.txt"):
        opened(name, tmp_path)
