"""Test the checkpoints of several epochs of a variant, on --threads processes.

python scripts/test_epochs.py --interval 25 --start_epoch 325 --end_epoch 400 --dataset LaSOT \
    --threads 4 --gpus 0,1,2,3 --proj_path ltr/spot/spot_transt_003 --arch transt --ts_tag t
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.cli import Parser, run
from pysot_toolkit.testing.ranks import one_voice
from pysot_toolkit.testing.verbs import run_test_epochs


def main() -> int:
    parser = Parser("Test the checkpoints of several epochs of a variant, on --threads processes.")
    parser.add_argument("--interval", type=int, default=25, help="epochs between checkpoints (default: 25)")
    parser.add_argument("--start_epoch", type=int, required=True, help="first epoch")
    parser.add_argument("--end_epoch", type=int, required=True, help="last epoch, tested too")
    parser.add_argument("--dataset", required=True, help="benchmark of test_dataset_dirs, e.g. LaSOT")
    parser.add_argument("--threads", type=int, default=1, help="MPI processes (default: 1, without MPI)")
    parser.add_argument(
        "--gpus", default="", help="GPU numbers for the processes, e.g. 0,1 (default: all there are)"
    )
    parser.add_argument(
        "--proj_path", required=True, help="ltr/MODULE/VARIANT, a folder under var/checkpoints"
    )
    parser.add_argument("--arch", default="transt", help="registered tracker (default: transt)")
    parser.add_argument(
        "--batch", type=int, help="sequences that advance together on a device (default: testing.batch, 1)"
    )
    parser.add_argument("--ts_tag", choices=("t", "s"), default="t", help="teacher (default) or student")
    return run_test_epochs(*parser.parse())


if __name__ == "__main__":
    run(one_voice(main))
