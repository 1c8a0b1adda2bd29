"""Track in a video file, a folder of images or a camera of your own.

python scripts/track.py clip.mp4 --checkpoint checkpoints/ltr/spot/spot_transt_003/TransT_ep0400_t.pth.tar \
    --box 312,180,64,120 --save out.mp4 --json out.json
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.cli import Parser, run
from pysot_toolkit.testing.own_input import run_track


def main() -> int:
    parser = Parser("Track in a video file, a folder of images or a camera of your own.")
    parser.add_argument("source", help="video file, folder of images, or number of a camera (0 is the first)")
    parser.add_argument("--arch", default="transt", help="registered tracker (default: transt)")
    parser.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="checkpoint, relative to var/ or a path"
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--box", metavar="X,Y,W,H", help="the target in the first frame, px")
    target.add_argument(
        "--boxes",
        metavar="FILE",
        help="several objects, JSON: {name: [x, y, w, h]}; neither: the mouse selects",
    )
    parser.add_argument("--save", metavar="FILE", help="video with the boxes, .mp4")
    parser.add_argument("--json", metavar="FILE", help="boxes and scores of every frame")
    parser.add_argument("--show", action="store_true", help="show the boxes in a window; q ends")
    parser.add_argument(
        "--visdom", action="store_true", help="show boxes and scores in a running visdom server"
    )
    return run_track(*parser.parse())


if __name__ == "__main__":
    run(main)
