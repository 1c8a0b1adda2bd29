"""J and F hold what their definitions promise; every broken mask is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.datasets.masks import check_mask, read_mask
from pysot_toolkit.evaluation.davis import TOLERANCE, boundary, compare, dilate, statistics, tolerance_disk
from pysot_toolkit.evaluation.evaluate import evaluate

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
DISKS = st.integers(1, 900).map(lambda side: tolerance_disk((side, side)))


def masks(shape):
    """Noise, and boxes as objects are: connected, with an inside, sometimes touching the border."""
    height, width = shape
    corners = st.tuples(
        st.integers(0, height), st.integers(0, height), st.integers(0, width), st.integers(0, width)
    )
    return arrays.arrays(bool, shape) | corners.map(lambda box: _box(shape, *box))


def _box(shape, top, bottom, left, right):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


PAIRS = SHAPES.flatmap(lambda shape: st.tuples(masks(shape), masks(shape)))


@given(PAIRS, DISKS)
def test_perfect_is_one_and_the_sides_are_equal(pair, disk):
    truth, result = pair
    assert compare(truth, truth, disk) == (1.0, 1.0)
    region, contour = compare(truth, result, disk)
    other = compare(result, truth, disk)
    assert region == other[0] and contour == pytest.approx(other[1], abs=1e-15)
    assert 0 <= region <= 1 and 0 <= contour <= 1


@given(PAIRS, DISKS)
def test_compare_is_its_definition(pair, disk):
    """On whole masks, pixel by pixel, without the crop."""
    truth, result = pair
    region, contour = compare(truth, result, disk)
    union = (truth | result).sum()
    assert region == ((truth & result).sum() / union if union else 1.0)
    edges = [_plain_boundary(mask) for mask in pair]
    near = [_plain_dilation(edge, disk) for edge in edges]
    lengths = [edge.sum() for edge in edges]
    if not all(lengths):
        assert contour == float(not any(lengths))
        return
    recall, precision = (edges[0] & near[1]).sum() / lengths[0], (edges[1] & near[0]).sum() / lengths[1]
    both = precision + recall
    assert contour == pytest.approx(2 * precision * recall / both if both else 0.0, abs=1e-15)


@given(SHAPES.flatmap(masks), DISKS)
def test_dilation_and_boundary_are_their_definitions(mask, disk):
    assert np.array_equal(boundary(mask), _plain_boundary(mask))
    assert np.array_equal(dilate(mask, disk), _plain_dilation(mask, disk))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_tolerance_disk_is_its_definition(height, width):
    radius = (len(disk := tolerance_disk((height, width))) - 1) // 2
    assert radius - 1 < TOLERANCE * np.sqrt(height**2 + width**2) <= radius + 1e-9
    rows, columns = np.nonzero(disk)
    inside = {(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1)}
    inside = {(y, x) for y, x in inside if y * y + x * x <= radius * radius}
    assert set(zip((rows - radius).tolist(), (columns - radius).tolist())) == inside


@given(arrays.arrays(np.float64, st.integers(1, 700), elements=st.floats(0, 1)))
def test_decay_turns_its_sign_with_time(values):
    mean, recall, decay = statistics(values)
    assert 0 <= recall <= 1 and values.min() - 1e-12 <= mean <= values.max() + 1e-12
    if (len(values) - 1) % 4 == 0:  # quarters that meet at whole positions are symmetric
        assert statistics(values[::-1])[2] == pytest.approx(-decay, abs=1e-12)
    assert statistics(np.full_like(values, values[0]))[2] == pytest.approx(0, abs=1e-12)


def _plain_boundary(mask):
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            near = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edge[y, x] = any(mask[y, x] != mask[p] for p in near if p[0] < height and p[1] < width)
    return edge


def _plain_dilation(mask, disk):
    radius = len(disk) // 2
    padded = np.pad(mask, radius)
    near = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(disk)):
        near |= padded[y : y + mask.shape[0], x : x + mask.shape[1]]
    return near


# Whole benchmarks of small videos.

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0] * 756  # fewer colours would be fewer bits


def save(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(PALETTE)
    image.save(path)


def video(shift: int = 0) -> list[np.ndarray]:
    """Eight masks of 20 x 30 px; object 1 moves right, object 2 rests, object 3 exists in the last four only."""
    frames = np.zeros((8, 20, 30), np.uint8)
    for k, frame in enumerate(frames):
        frame[4:12, 2 + k + shift : 10 + k + shift] = 1
        frame[14:19, 20:27] = 2
        if k >= 4:
            frame[0:3, 20 : 27 - shift] = 3
    return list(frames)


class Bench:
    """A benchmark of two videos and one tracker that is right."""

    def __init__(self, root: Path, dataset: str, truth: list[np.ndarray], results: list[np.ndarray]) -> None:
        self.root, self.dataset = root, dataset
        self.data, self.tracker = root / "data", root / "results" / dataset / "t"
        for name in ("car", "dog"):
            for k, (mask, result) in enumerate(zip(truth, results)):
                save(self.data / "Annotations" / "480p" / name / f"{k:05d}.png", mask)
                save(self.tracker / name / f"{k:05d}.png", result)
        year = dataset[-4:]
        (self.data / "ImageSets" / year).mkdir(parents=True)
        (self.data / "ImageSets" / year / "val.txt").write_text("car\ndog\n")

    def evaluate(self, **options):
        settings = load_settings([f"paths.test.{self.dataset}", str(self.data)])
        return evaluate(settings, self.dataset, results=self.root / "results", **options)


@pytest.fixture
def bench(tmp_path):
    two = [np.where(mask == 3, 0, mask) for mask in video()]
    return Bench(tmp_path, "DAVIS2017", two, two)


def test_a_perfect_tracker(bench):
    report = bench.evaluate(processes=1)
    values = report.scores["davis"]["t"].overall.values
    assert (values["jf"], values["j_recall"], values["f_recall"], values["j_decay"]) == (1, 1, 1, 0)
    assert report.scores["davis"]["t"].sequences["car"].frames == 6
    assert not report.faults["t"]


def test_first_and_last_frame_do_not_count(bench):
    for frame in ("00000.png", "00007.png"):
        save(bench.tracker / "car" / frame, np.zeros((20, 30)))
    assert bench.evaluate().value("t", "jf") == 1
    save(bench.tracker / "car" / "00003.png", np.zeros((20, 30)))
    values = bench.evaluate().scores["davis"]["t"].sequences["car"].values
    assert values["j_mean"] == values["j_mean_1"] == values["f_mean_2"] == pytest.approx(5 / 6)


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"IDAT") + 12])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 255
    path.write_bytes(data)


def recoloured(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def enlarged(path: Path) -> None:
    save(path, np.zeros((40, 30)))


def renamed_as_jpeg(path: Path) -> None:
    Image.open(path).convert("L").save(path.with_suffix(".jpg"))
    path.with_suffix(".jpg").rename(path)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("damage", "kind", "told"),
    [
        (truncated, "broken", "is damaged ("),
        (flipped, "broken", "is damaged ("),
        (lambda path: path.write_bytes(b""), "broken", "is no PNG"),
        (renamed_as_jpeg, "broken", "is no PNG"),
        (recoloured, "broken", "is colour, not an 8-bit indexed PNG"),
        (enlarged, "broken", "is 30 x 40 px, the first mask 30 x 20"),
        (lambda path: (path.unlink(), path.mkdir()), "broken", "cannot be read (Is a directory)"),
        (Path.unlink, "short", "7 masks for 8 frames"),
        (lambda path: shutil.copy(path, path.with_name("00008.png")), "long", "9 masks for 8 frames"),
        (lambda path: shutil.rmtree(path.parent), "missing", "no masks"),
    ],
)
def test_a_broken_result_is_named(bench, damage, kind, told):
    damage(bench.tracker / "dog" / "00003.png")
    with pytest.raises(UserError, match="faulty results: 1"):
        bench.evaluate()
    report = bench.evaluate(allow_missing=True)
    (fault,) = report.faults["t"]
    assert (fault.sequence, fault.kind) == ("dog", kind) and told in fault.detail
    assert "dog" in fault.path
    scored = report.scores["davis"]["t"].sequences
    assert set(scored) == ({"car", "dog"} if kind in ("short", "long") else {"car"})
    if kind == "short":  # a frame without a mask is empty
        assert scored["dog"].values["j_mean"] == pytest.approx(5 / 6)
    if kind == "long":
        assert scored["dog"].values["jf"] == 1


@pytest.mark.faults
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda mask: np.pad(mask, ((0, 0), (0, 5))), "is 35 x 20 px, the annotation 30 x 20"),
        (lambda mask: np.where(mask == 2, 7, mask), "object 7 in its masks, 2 objects in the annotation"),
    ],
)
def test_masks_that_do_not_fit_the_annotation_are_refused(bench, changed, told):
    for path in (bench.tracker / "dog").iterdir():
        save(path, changed(read_mask(path)))
    report = bench.evaluate(allow_missing=True)
    (fault,) = report.faults["t"]
    assert fault.sequence == "dog" and told in fault.detail
    assert set(report.scores["davis"]["t"].sequences) == {"car"}


@pytest.mark.faults
def test_other_frame_numbers_are_refused(bench):
    """As many masks as frames, numbered from 1: scored as they stand, each would meet its neighbour's annotation."""
    folder = bench.tracker / "dog"
    for k in reversed(range(8)):
        (folder / f"{k:05d}.png").rename(folder / f"{k + 1:05d}.png")
    (fault,) = bench.evaluate(allow_missing=True).faults["t"]
    assert "00008.png: is no annotated frame, while there is no mask 00000.png" in fault.detail


@pytest.mark.faults
def test_a_broken_annotation_stops_the_evaluation(bench):
    path = bench.data / "Annotations" / "480p" / "dog" / "00003.png"
    save(path, np.zeros((5, 5)))
    with pytest.raises(UserError, match=r"00003.png: is not of the size of 00000.png"):
        bench.evaluate()
    save(path, video()[3])
    truncated(path)
    with pytest.raises(UserError, match=r"00003.png: is damaged"):
        bench.evaluate()


@pytest.mark.faults
@given(st.data())
def test_no_damage_escapes(tmp_path_factory, data):
    """Whatever bytes are cut or changed, a mask reads or is refused by name; what is checked whole also reads."""
    path = tmp_path_factory.getbasetemp() / "mask.png"
    save(path, video()[5])
    whole = path.read_bytes()
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, max(len(broken) - 1, 0)), max_size=3)):
        if broken:
            broken[place] = data.draw(st.integers(0, 255))
    path.write_bytes(broken)
    try:
        check_mask(path)
    except ValueError as error:
        assert str(error)
    else:
        assert np.array_equal(read_mask(path), video()[5])


@pytest.mark.parametrize("annotated", [1, 255])
def test_davis_2016_has_one_object(tmp_path, annotated):
    """Parts of 2017's annotation and the 255 of 2016's own are one object; so are all numbers of a result."""
    truth = [np.where(mask == 2, annotated, mask) for mask in video()]
    bench = Bench(tmp_path, "DAVIS2016", truth, [(mask > 0) * 255 for mask in truth])
    table = bench.evaluate().scores["davis"]["t"]
    assert table.overall.values["jf"] == 1
    assert table.sequences["car"].parts["objects"].tolist() == [1]


def test_void_is_background_in_2017(tmp_path):
    truth = [np.where(mask > 1, 255, mask) for mask in video()]
    bench = Bench(tmp_path, "DAVIS2017", truth, [np.where(mask > 1, 0, mask) for mask in video()])
    table = bench.evaluate().scores["davis"]["t"]
    assert table.overall.values["jf"] == 1
    assert table.sequences["car"].parts["objects"].tolist() == [1]


def test_an_object_that_appears_later(tmp_path):
    """DAVIS does not count it; YouTube-VOS does, from the frame after its first one."""
    bench = Bench(tmp_path, "DAVIS2017", video(), [np.where(m == 3, 0, m) for m in video(shift=2)])
    assert bench.evaluate().scores["davis"]["t"].sequences["car"].parts["objects"].tolist() == [1, 2]

    split = tmp_path / "youtube" / "train"
    shutil.copytree(bench.data / "Annotations" / "480p", split / "Annotations")
    (split / "meta.json").write_text('{"videos": {"car": {"objects": {}}}}')
    for path in (split / "Annotations" / "car").iterdir():
        image = split / "JPEGImages" / "car" / f"{path.stem}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    for k, mask in enumerate(video(shift=2)):  # as in an archive for the server
        save(tmp_path / "results" / "YouTube-VOS" / "t" / "Annotations" / "car" / f"{k:05d}.png", mask)
    save(
        tmp_path / "results" / "YouTube-VOS" / "t" / "Annotations" / "car" / "00009.png", mask
    )  # not annotated
    settings = load_settings(["paths.test.YouTube-VOS", str(tmp_path / "youtube")])
    report = evaluate(settings, "YouTube-VOS", results=tmp_path / "results")
    assert not report.faults["t"]
    scores = report.scores["davis"]["t"].sequences["car"]
    assert scores.parts["objects"].tolist() == [1, 2, 3]
    late = scores.parts["J"][2]
    assert np.isnan(late).tolist() == [True] * 4 + [False] * 2  # frames 5 and 6 of 0 to 7
    assert late[4:] == pytest.approx(15 / 21)
    assert scores.values["j_mean_3"] == pytest.approx(15 / 21)
