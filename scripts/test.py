"""Test one checkpoint on a benchmark, or on one of its sequences.

python scripts/test.py --dataset OTB100 --arch transt --resume checkpoints/ltr/spot/spot_transt_003/TransT_ep0400_t.pth.tar
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.cli import Parser, run
from pysot_toolkit.testing.ranks import one_voice
from pysot_toolkit.testing.verbs import run_test


def main() -> int:
    parser = Parser("Test one checkpoint on a benchmark, or on one of its sequences.")
    parser.add_argument("--dataset", required=True, help="benchmark of test_dataset_dirs, e.g. OTB100")
    parser.add_argument("--arch", default="transt", help="registered tracker (default: transt)")
    parser.add_argument(
        "--batch", type=int, help="sequences that advance together on a device (default: testing.batch, 1)"
    )
    parser.add_argument(
        "--resume", required=True, metavar="FILE", help="checkpoint, relative to var/ or a path"
    )
    parser.add_argument("--name", default="", help="name of the results (default: from the checkpoint's)")
    parser.add_argument("--video", default="", help="this sequence only")
    parser.add_argument(
        "--vis",
        action="store_true",
        help="also draw the boxes: an overlay video and a contact sheet per sequence",
    )
    return run_test(*parser.parse())


if __name__ == "__main__":
    run(one_voice(main))
