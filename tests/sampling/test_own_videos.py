"""``docs/own_videos.md`` does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np

from config.defaults import get_defaults
from ltr.dataset.base import open_dataset
from pysot_toolkit.datasets import open_benchmark
from sampling.key_frames import ensure_key_frames
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "own_videos.md").read_text()


def test_the_page_from_boxes_to_a_benchmark(tmp_path):
    """Its JSON file loads for training, its script makes sequences that testing reads."""
    root = tmp_path / "my_videos"
    (root / "gate").mkdir(parents=True)
    image = np.zeros((8, 8, 3), np.uint8)
    for frame in range(400):
        (root / "gate" / f"{frame + 1}.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    writer = cv2.VideoWriter(str(root / "harbour.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 64))
    for _ in range(100):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()

    results = tmp_path / "results"
    results.mkdir()
    boxes = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1]
    (results / "Frames_all_kf_003.json").write_text(boxes)
    settings = get_defaults()
    settings.paths.sampling_results, settings.paths.var = str(results), str(tmp_path / "var")
    dataset = open_dataset("Frames", "all", root, tmp_path / "var/cache/index")
    found = {
        key: (f_ids.tolist(), bbox.tolist())
        for key, _, f_ids, bbox in ensure_key_frames(dataset, settings).entries(dataset)
    }
    wanted = json.loads(boxes)["sparse_sample_result"]
    assert found == {key: (value[0]["f_ids"], value[0]["bboxes"]) for key, value in wanted.items()}

    local = tmp_path / "local.py"
    local.write_text(
        "class EnvironmentSettings:\n def __init__(self):\n"
        f"  self.workspace_dir = {settings.paths.var!r}\n"
        f"  self.train_dataset_dirs = {{'Frames': {str(root)!r}}}\n  self.test_dataset_dirs = {{}}\n"
    )
    script = next(
        block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "open_spec" in block
    )
    script = script.replace("load_settings()", f"load_settings(['paths.sampling_results', {str(results)!r}])")
    script = script.replace("var/my_videos", str(tmp_path / "bench"))
    environment = os.environ | {"SPOT_LOCAL": str(local), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    settings.paths.test["MyVideos"] = str(tmp_path / "bench")
    gate, harbour = open_benchmark("MyVideos", settings).sequences
    assert (gate.name, len(gate.frames)) == ("gate", 360) and gate.frames[0].endswith("/41.jpg")
    assert gate.init_bbox.tolist() == [312, 180, 64, 120]
    assert (harbour.name, len(harbour.frames)) == ("harbour", 100)
    assert all(os.path.isfile(path) for path in gate.frames + harbour.frames)
