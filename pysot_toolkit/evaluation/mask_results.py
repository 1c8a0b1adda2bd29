"""Results of video object segmentation, ``{tracker}/{sequence}/{frame}.png``, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

from pysot_toolkit.datasets.masks import check_mask
from pysot_toolkit.evaluation.protocol import RESULT_READERS, Runs
from pysot_toolkit.evaluation.results import Fault


@RESULT_READERS.register("masks")
def read_mask_runs(
    folder: Path, names: list[str], frames: int, extra_frames: bool = False
) -> tuple[Runs | None, list[Fault]]:
    """The masks of one tracker for one sequence, and what is wrong with its files.

    Masks lie in ``{name}/``, or in ``Annotations/{name}/`` as in an archive for YouTube-VOS's server.
    Of each file the header and the checksums are read here; the pixels are left to the protocol,
    which refuses masks of another size than the annotation and objects that it does not know.

    Args:
        folder: of the tracker.
        names: under which toolkits store the sequence, best first; faults carry the first.
        frames: annotated frames of the sequence.
        extra_frames: the video has more images than that, so more masks are right.

    Returns:
        None where a mask is unreadable, no 8-bit indexed PNG, or of another size than the first, and
        the faults.
    """
    places = [place / name for name in names for place in (folder, folder / "Annotations")]
    masks = next((found for found in map(_masks, places) if found), [])
    if not masks:
        return None, [Fault(names[0], "missing", str(places[0]), "no masks")]
    broken = _broken(masks)
    if broken:
        path, wrong = broken[0]
        more = f", and {len(broken) - 1} more masks" if len(broken) > 1 else ""
        return None, [Fault(names[0], "broken", str(path), f"{wrong}{more}")]
    faults = []
    if len(masks) < frames or (len(masks) > frames and not extra_frames):
        kind = "short" if len(masks) < frames else "long"
        faults.append(Fault(names[0], kind, str(masks[0].parent), f"{len(masks)} masks for {frames} frames"))
    return Runs([], masks=tuple(masks)), faults


def _masks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.png") if not path.name.startswith("."))


def _broken(masks: list[Path]) -> list[tuple[Path, str]]:
    """The files that are no masks, or not of the first one's size, and why."""
    broken = []
    size = None
    for path in masks:
        try:
            found = check_mask(path)
        except ValueError as error:
            broken.append((path, str(error)))
            continue
        size = size or found
        if found != size:
            broken.append((path, f"is {found[0]} x {found[1]} px, the first mask {size[0]} x {size[1]}"))
    return broken
