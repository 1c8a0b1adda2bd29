"""Trackers of ours inside the official VOT toolkit, which speaks TraX with them (Čehovin, TraX, 2017).

In the trackers.ini of the toolkit's workspace:

    [spot_transt_003]
    label = SPOT
    protocol = trax
    command = /path/to/.venv/bin/python -m pysot_toolkit.testing.vot_client --arch transt --resume /path/to/TransT_ep0400_t.pth.tar
"""

from __future__ import annotations

from typing import Any

import numpy as np

from config.cli import Parser, run
from config.errors import UserError
from pysot_toolkit.datasets.vot import polygon_to_rectangle
from pysot_toolkit.testing.checkpoints import find_checkpoint, tracker_name
from pysot_toolkit.testing.one_pass import OnePassTracker
from pysot_toolkit.testing.ranks import choose_rank_device
from pysot_toolkit.trackers.base import build_tracker
from pysot_toolkit.trackers.images import BadImage, read_image


def main() -> None:
    parser = Parser("Serve one tracker to the official VOT toolkit, over TraX.")
    parser.add_argument("--arch", default="transt", help="registered tracker (default: transt)")
    parser.add_argument(
        "--resume", required=True, metavar="FILE", help="checkpoint, relative to var/ or a path"
    )
    options, settings = parser.parse()
    checkpoint = find_checkpoint(options.resume, settings)
    device = choose_rank_device([], settings, rank=0, size=1)
    serve(build_tracker(options.arch, checkpoint, settings, device), tracker_name(checkpoint))


def serve(tracker: OnePassTracker, name: str) -> None:
    """Answer a TraX client's requests over standard input and output until it ends the session.

    A start is answered with the rectangle that the tracker was given, a frame with its box and, as the property
    ``confidence``, its score. Polygons become the rectangles on which ``scripts/test.py`` starts trackers.

    Raises:
        UserError: the TraX library is missing, or the client sent something that cannot be tracked; it is told.
    """
    try:
        import trax
        from trax.image import Image, ImageChannel
        from trax.region import Rectangle, Region
        from trax.server import Server
    except ImportError as error:
        raise UserError(f"TraX does not load ({error}); pip install vot-trax") from error
    try:
        server = Server([Region.RECTANGLE, Region.POLYGON], [Image.PATH], [ImageChannel.COLOR], name)
        while (request := server.wait()).type != trax.TraxStatus.QUIT:
            image = read_image(request.image[ImageChannel.COLOR].path())
            if request.type == trax.TraxStatus.INITIALIZE:
                region, _ = request.objects[0]
                bbox, answer = upright(region), {}
                tracker.initialize(image, bbox)
            else:
                bbox, score, *_ = tracker.track(image)
                answer = {"confidence": float(score)}
            server.status([(Rectangle.create(*map(float, bbox)), answer)])
    except trax.TraxException as error:
        raise UserError(
            f"the TraX session broke off ({error}); start the tracker from the toolkit"
        ) from error
    except (UserError, BadImage) as error:
        server.quit(str(error))
        raise UserError(str(error)) from error


def upright(region: Any) -> np.ndarray:
    """The rectangle (x, y, w, h), float64 ``[4]``, px, on which a tracker starts for a TraX region.

    Raises:
        UserError: it is neither a rectangle nor a polygon of four corners.
    """
    if region.type == "rectangle":
        return np.array(region.bounds(), np.float64)
    if region.type == "polygon" and region.size() == 4:
        corners = np.array([region[i] for i in range(4)], np.float64)
        return polygon_to_rectangle(corners.reshape(-1))
    raise UserError(
        f"the client starts the tracker on a {region.type}; it needs a rectangle or a polygon of four corners"
    )


if __name__ == "__main__":
    run(main)
