"""Train a variant: ``run_training.py spot spot_transt_003``. Started again, it goes on where it was."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.cli import Parser, overrides, run
from ltr.admin.train import train


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("module", help="family of the train setting, e.g. spot")
    parser.add_argument("variant", help="its name, e.g. spot_transt_003")
    options = parser.parse_args()
    train(options.module, options.variant, overrides(options))


if __name__ == "__main__":
    run(main)
