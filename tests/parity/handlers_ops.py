"""Parity of the operators that torch lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltr.ops.prroi_pool import prroi_pool2d

EXACT = 1e-8  # relative, of float64; the region of 0.004 px costs the last digits


def prroi_pool(folder: Path, kit: Any) -> None:
    case = json.loads((folder / "case.json").read_text())
    golden = np.load(folder / "golden.npz")
    inputs = {
        entry["key"]: np.array(entry["values"])
        if "values" in entry
        else kit.array(entry["name"], tuple(entry["shape"]), entry["low"], entry["high"])
        for entry in case["inputs"]
    }
    compared = set()
    for rows, columns, scale in case["build"]["configurations"]:
        name = f"{rows}x{columns}_{scale}"
        features, rois, upstream = (
            torch.from_numpy(
                np.array(inputs[key], np.float32)
            ).double()  # float32 values, computed in float64
            for key in ("features", "rois", f"upstream_{name}")
        )
        out = prroi_pool2d(features.requires_grad_(), rois.requires_grad_(), (rows, columns), scale)
        to_features, to_rois = torch.autograd.grad((out * upstream).sum(), (features, rois))
        for kind, found in (("out", out), ("grad_features", to_features), ("grad_rois", to_rois)):
            want = golden[f"{kind}_{name}"]
            assert found.shape == want.shape
            assert kit.difference(found.detach().numpy(), want) <= EXACT, f"{kind}_{name}"
            compared.add(f"{kind}_{name}")
    assert compared == set(golden)


HANDLERS = {"prroi_pool": prroi_pool}
