"""Protocol ``davis``: region similarity J and contour accuracy F of masks as in davis2017-evaluation.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR
2016; Pont-Tuset et al., The 2017 DAVIS Challenge, arXiv 1704.00675. The first and the last frame do
not count, objects are those up to the highest number in the first mask, and the overall scores are
means over objects, not over videos. Where objects appear later (YouTube-VOS) each counts from the
frame after its first one, as in pytracking.

The one deviation: the reference holds the positions that part a video into quarters in 8 bits, so
that its decay is wrong or NaN for an object with 256 scored frames or more. Ours is that of its formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from config.errors import UserError
from pysot_toolkit.datasets.davis import SINGLE_OBJECT
from pysot_toolkit.datasets.masks import read_annotation, read_mask
from pysot_toolkit.datasets.youtube_vos import LATE_OBJECTS
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Column, Protocol, Runs, Scores, Truth, Unscorable

TOLERANCE = 0.008  # of the image diagonal: how far apart two contours may be
_STATISTICS = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour: bool ``[H, W]`` to the same."""
    edge = np.zeros_like(mask)
    edge[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def tolerance_disk(shape: tuple[int, int]) -> np.ndarray:
    """Offsets within the tolerance for an image of this (height, width): uint8 ``[2r+1, 2r+1]``, 1 where inside."""
    radius = int(np.ceil(TOLERANCE * np.linalg.norm(shape)))
    squares = np.arange(-radius, radius + 1) ** 2
    return (squares[:, None] + squares <= radius**2).astype(np.uint8)


def dilate(mask: np.ndarray, disk: np.ndarray) -> np.ndarray:
    """Pixels that have one of the mask within the disk around them: bool ``[H, W]`` to the same."""
    return cv2.dilate(mask.view(np.uint8), disk).view(bool)


def compare(truth: np.ndarray, result: np.ndarray, disk: np.ndarray) -> tuple[float, float]:
    """J and F of one object in one frame, both in [0, 1].

    J is intersection over union. F is the harmonic mean of the shares of either boundary that lie
    within the tolerance of the other. Both are 1 where neither mask has anything.

    Args:
        truth: bool ``[H, W]``.
        result: the same.
        disk: of ``tolerance_disk``.
    """
    # What follows happens around the object: everything else is empty in both masks. Frame by frame
    # these crops stay in the processor's cache; dilating whole frames, many at once, takes 4 times longer.
    x, y, width, height = cv2.boundingRect((truth | result).view(np.uint8))
    if not width:
        return 1.0, 1.0
    around = np.s_[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
    truth, result = truth[around], result[around]
    region = np.count_nonzero(truth & result) / np.count_nonzero(truth | result)
    true_edge, edge = boundary(truth), boundary(result)
    true_length, length = np.count_nonzero(true_edge), np.count_nonzero(edge)
    if not true_length or not length:  # a mask that fills the image has no boundary either
        return region, float(true_length == length)
    precision = np.count_nonzero(edge & dilate(true_edge, disk)) / length
    recall = np.count_nonzero(true_edge & dilate(edge, disk)) / true_length
    return region, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall (share above 0.5) and decay (mean of the first quarter less that of the last) of ``[n]``, n > 0.

    The quarters share the frames at which they meet.
    """
    # The small term makes halves go up, which rounding to even would not.
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    decay = values[: ends[1] + 1].mean() - values[ends[3] :].mean()
    return float(values.mean()), float(np.mean(values > 0.5)), float(decay)


@PROTOCOLS.register("davis")
class Davis(Protocol):
    """J&F, and mean, recall and decay of J and of F.

    The values of a sequence are means over its objects; those of object k are ``j_mean_k`` and so
    on. ``Scores.parts`` has ``objects`` (the numbers, [K]), ``J`` and ``F`` ([K, n], NaN where an
    object does not count) and ``statistics`` ([K, 6]).
    """

    name = "davis"
    version = 1
    source = "davis2017-evaluation"
    results = frozenset({"masks"})
    columns = (
        Column("jf", "J&F"),
        Column("j_mean", "J mean"),
        Column("j_recall", "J recall"),
        Column("j_decay", "J decay", better="lower"),
        Column("f_mean", "F mean"),
        Column("f_recall", "F recall"),
        Column("f_decay", "F decay", better="lower"),
    )
    curves = ()

    def score(self, truth: Truth, runs: Runs) -> Scores:
        """One frame is held in memory at a time. A frame without a mask counts as empty.

        Raises:
            Unscorable: fewer than three frames are annotated; a mask is damaged, of another size than
                the annotation or of a frame that is not annotated while an annotated one has none;
                or an object is not annotated. The reference program stops in these cases.
            UserError: an annotated mask is missing or damaged.
        """
        table = _frame_scores(truth, _paired(truth, runs))
        # An object that appears in the last two frames has nothing to score.
        table = {number: row for number, row in table.items() if not np.isnan(row).all()}
        if not table:
            raise Unscorable("no object is annotated between its first frame and the last")
        rows = np.array(
            [[*statistics(j[~np.isnan(j)]), *statistics(f[~np.isnan(f)])] for j, f in table.values()]
        )
        values = _values(rows.mean(axis=0))
        for number, row in zip(table, rows):
            values |= {f"{key}_{number}": value for key, value in _values(row).items()}
        frames = np.array(list(table.values()))
        parts = {"objects": np.array(list(table)), "J": frames[:, 0], "F": frames[:, 1], "statistics": rows}
        return Scores(values, {}, frames.shape[2], parts=parts)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        rows = np.concatenate([score.parts["statistics"] for score in scores])
        return Scores(_values(rows.mean(axis=0)), {}, sum(score.frames for score in scores))

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        objects = np.array([len(score.parts["statistics"]) for score in scores])
        sums = np.array([score.parts["statistics"].sum(axis=0) for score in scores])
        return _columns(counts @ sums / (counts @ objects)[:, None])


def _columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    """The scores in the last axis of ``[..., 6]`` by name, and J&F."""
    table = {key: rows[..., place] for place, key in enumerate(_STATISTICS)}
    return {"jf": (table["j_mean"] + table["f_mean"]) / 2, **table}


def _values(row: np.ndarray) -> dict[str, float]:
    return {key: float(value) for key, value in _columns(row).items()}


def _paired(truth: Truth, runs: Runs) -> list[Path | None]:
    """The tracker's mask of each annotated frame: the one of the same file name."""
    if not truth.masks:
        raise UserError(f"sequence '{truth.name}': protocol davis needs annotated masks; restore them")
    if len(truth.masks) < 3:
        raise Unscorable(f"{len(truth.masks)} annotated frames, and the first and the last do not count")
    given = {path.name: path for path in runs.masks}
    wanted = [path.name for path in truth.masks]
    absent, foreign = set(wanted) - given.keys(), given.keys() - set(wanted)
    if absent and foreign:
        raise Unscorable(
            f"{given[min(foreign)]}: is no annotated frame, while there is no mask {min(absent)}", "broken"
        )
    return [given.get(name) for name in wanted]


def _frame_scores(truth: Truth, results: Sequence[Path | None]) -> dict[int, np.ndarray]:
    """J and F of each object in the frames but the first and the last, ``[2, n]``; NaN where it does not count."""
    single, late = truth.benchmark in SINGLE_OBJECT, truth.benchmark in LATE_OBJECTS
    first = read_annotation(truth.masks[0], single)
    disk = tolerance_disk(first.shape)
    known = _present(first) if late else range(1, int(first.max()) + 1)
    table = {number: np.full((2, len(results) - 2), np.nan) for number in known}
    highest = 0
    for frame, (annotated, result) in enumerate(_inner_frames(truth.masks, results, first.shape, single)):
        for number, row in table.items():
            row[:, frame] = compare(annotated == number, result == number, disk)
        if late:
            for number in _present(annotated):
                table.setdefault(number, np.full((2, len(results) - 2), np.nan))
        highest = max(highest, int(result.max()))
    if highest > max(table, default=0):
        raise Unscorable(
            f"object {highest} in its masks, {max(table, default=0)} objects in the annotation", "broken"
        )
    return table


def _present(mask: np.ndarray) -> list[int]:
    return [int(number) for number in np.flatnonzero(np.bincount(mask.ravel())) if number]


def _inner_frames(
    masks: Sequence[Path], results: Sequence[Path | None], shape: tuple[int, int], single: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Annotation and result, uint8 ``[H, W]`` each, of the frames but the first and the last."""
    for path, result in zip(masks[1:-1], results[1:-1]):
        annotated = read_annotation(path, single)
        if annotated.shape != shape:
            raise UserError(f"{path}: is not of the size of {masks[0].name}; restore the file")
        yield annotated, _result(result, shape, single) if result else np.zeros(shape, np.uint8)


def _result(path: Path, shape: tuple[int, int], single: bool) -> np.ndarray:
    try:
        mask = read_mask(path)
    except ValueError as error:
        raise Unscorable(f"{path}: {error}", "broken") from error
    if mask.shape != shape:
        sizes = "{1} x {0} px, the annotation {3} x {2}".format(*mask.shape, *shape)
        raise Unscorable(f"{path}: is {sizes}", "broken")
    return (mask != 0).astype(np.uint8) if single else mask
