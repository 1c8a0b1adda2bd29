"""An obvious model of the sampler state, and small inputs for both."""

from __future__ import annotations

import numpy as np

from ltr.data.sampler_state import RECORD

FRAMES = 40
NAMES = [
    ("LaSOT_b-2", 0),
    ("LaSOT_b-2", 1),
    ("GOT-10k_Train_000001", 0),
    ('TrackingNet_00_é"\\', 0),
    ("Frames_a", 0),
]
#: Rows of ``NAMES`` in the state, which sorts them.
SORTED = sorted(NAMES)


def entries(frames):
    return [
        (*name, np.array(f, int), [(f_id, 0.125, 20, 10.25) for f_id in f]) for name, f in zip(NAMES, frames)
    ]


def as_records(epoch, first_order=0):
    return np.array([(first_order + i, *r) for i, r in enumerate(epoch)], RECORD)


def model_of(frames):
    """{(name, frame): (box, confidence)} of the labels."""
    return {(name, f): ((float(f), 0.125, 20.0, 10.25), 1.0) for name, ids in zip(NAMES, frames) for f in ids}


def merge_slowly(model, frames, epoch):
    """The rule, one record after the other; returns how many frames were new."""
    labelled, before = set(model_of(frames)), len(model)
    for row, frame, bbox, conf in epoch:
        at = SORTED[row], frame
        # confidences arrive as float32
        value = tuple(round(x, 1) for x in bbox), round(float(np.float32(conf)), 4)
        if at not in model or (at not in labelled and value[1] > model[at][1]):
            model[at] = value
    return len(model) - before


def content(state):
    found = {}
    for row, name in enumerate(state.sequences):
        frames, boxes, confidences = state.recorded(row)
        assert (np.diff(frames) > 0).all()
        for f, b, c in zip(frames.tolist(), boxes.tolist(), confidences.tolist()):
            found[name, f] = tuple(b), round(c, 4)
    return found
