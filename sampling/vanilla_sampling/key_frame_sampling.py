"""Choose the labelled frames of a training set: one visible frame per equal part of each video.

python key_frame_sampling.py --dataset LaSOT --split train --num 3
python key_frame_sampling.py --dataset TrackingNet --split 0-3 --num 3 --merge
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from config.cli import Parser, run
from config.console import say
from config.errors import UserError
from config.settings import Settings
from ltr.dataset.base import DATASETS, open_spec
from sampling.key_frames import (
    MODE,
    load_key_frames,
    make_key_frames,
    merge_key_frames,
    sampling_file,
    write_key_frames,
)


def main() -> int:
    parser = Parser("Choose the labelled frames of a training set.")
    parser.add_argument("--dataset", required=True, help="LaSOT, GOT-10k, TrackingNet or Frames")
    parser.add_argument(
        "--split", required=True, help="train, vottrain, ...; TrackingNet: 0-3, 0,1,2,3 or all"
    )
    parser.add_argument("--mode", default=MODE, help=f"{MODE}, the only one")
    parser.add_argument("--num", type=int, help="labelled frames per video")
    parser.add_argument(
        "--use_all_anno", action="store_true", help="TrackingNet: interpolated boxes count as labels"
    )
    parser.add_argument(
        "--no_parse", action="store_true", help="take --split as one split, not as one per set"
    )
    parser.add_argument("--merge", action="store_true", help="join the files of the sets into one as well")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    options, settings = parser.parse()

    chosen = settings.sampling
    chosen.num = chosen.num if options.num is None else options.num
    chosen.use_all_anno = chosen.use_all_anno or options.use_all_anno
    if options.mode != MODE:
        raise UserError(f"--mode {options.mode}: unknown, the only mode is {MODE}")
    if not 1 <= chosen.num <= 999:
        raise UserError(f"--num {chosen.num}: give the labelled frames per video, 1 to 999")

    dataset = DATASETS.get(options.dataset)
    split = dataset.canonical_split(options.split)
    parts = [split] if options.no_parse else dataset.split_parts(split)
    contents = [_sample(options.dataset, part, options.overwrite, settings) for part in parts]
    if options.merge and parts != [split]:
        path = sampling_file(settings, options.dataset, split, chosen.num)
        if path.exists() and not options.overwrite:
            say(f"{path}: is there and kept; --overwrite replaces it")
        else:
            write_key_frames(path, merge_key_frames(options.dataset, split, chosen.num, contents))
            say(f"{path}: {len(parts)} files merged")
    return 0


def _sample(name: str, split: str, overwrite: bool, settings: Settings) -> dict[str, Any]:
    """The content of one sampling file, made unless it is there already."""
    path = sampling_file(settings, name, split, settings.sampling.num)
    if path.exists() and not overwrite:
        say(f"{path}: is there and kept; --overwrite replaces it")
        return load_key_frames(path, name, split, settings.sampling.num)
    return make_key_frames(path, open_spec(f"{name}:{split}", settings), settings)


if __name__ == "__main__":
    run(main)
