"""TrackingNet's test set (Mueller et al.: TrackingNet, ECCV 2018)."""

from __future__ import annotations

import functools
from pathlib import Path

from config.errors import UserError
from pysot_toolkit.datasets.base import BENCHMARKS, Annotation, BenchmarkFormat, Sequence, list_images
from pysot_toolkit.datasets.text import read_boxes


@BENCHMARKS.register("TrackingNet")
class TrackingNet(BenchmarkFormat):
    """``TEST/anno/{id}.txt`` and ``TEST/frames/{id}/{n}.jpg``, frames from 0; or the folder ``TEST`` itself.

    The published annotation holds the first box only; the server scores the rest.
    """

    protocols = ("pysot-ope", "trackingnet")

    def read_folder(self, root: Path) -> list[Sequence]:
        test = root / "TEST" if (root / "TEST" / "anno").is_dir() else root
        if not (test / "anno").is_dir():
            raise UserError(
                f"{root}: has neither TEST/anno nor anno; give TrackingNet's folder or its TEST folder"
            )
        return [
            Sequence(
                path.stem,
                frames=functools.partial(list_images, test / "frames" / path.stem),
                annotation=functools.partial(_annotation, path),
            )
            for path in sorted((test / "anno").glob("*.txt"))
        ]


def _annotation(path: Path) -> Annotation:
    return Annotation(read_boxes(path))
