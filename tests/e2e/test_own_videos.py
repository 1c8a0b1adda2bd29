"""Own videos: an image folder and a video file without ground truth, three boxes each in a JSON file."""

from __future__ import annotations

import json
import shutil

import cv2

from tests.e2e.user_folder import UserFolder


def test_videos_without_ground_truth_train_a_tracker(shared, tmp_path):
    sequences = shared("sequences")
    videos = tmp_path / "my_videos"
    images = sorted((sequences / "DAVIS/JPEGImages/480p/tennis").glob("*.jpg"))[:30]
    (videos / "tennis").mkdir(parents=True)
    for image in images:
        shutil.copy(image, videos / "tennis" / image.name)
    frames = [cv2.imread(str(path)) for path in sorted((sequences / "VOT2018/bag/color").glob("*.jpg"))[:24]]
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(videos / "bag.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()

    place = UserFolder(tmp_path / "place", sequences)
    place.settings |= {
        "data.datasets": "Frames:all",
        "paths.train.Frames": str(videos),
        "train.tensorboard": "False",
    }
    refused = place.run("scripts/run_training.py", "spot", "spot_transt_003")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "Frames_all_kf_003.json" in refused.stderr and "bboxes" in refused.stderr

    box = [[300, 200, 80, 120]] * 3
    content = {
        "fs_settings": {
            "name": "Frames",
            "dataset": "Frames",
            "split": "all",
            "mode": "key_frames",
            "num": 3,
        },
        "failure_seqs": [],
        "sparse_sample_result": {
            "Frames_tennis": [{"f_ids": [2, 14, 27], "bboxes": box}],
            "Frames_bag": [{"f_ids": [0, 11, 23], "bboxes": [[150, 100, 90, 80]] * 3}],
        },
    }
    keys = tmp_path / "place/key_frames"
    keys.mkdir()
    (keys / "Frames_all_kf_003.json").write_text(json.dumps(content))
    place.ok("scripts/run_training.py", "spot", "spot_transt_003")
    state = json.loads((place.var / "records/sampler_state_spot_transt_003.json").read_text())
    assert state.keys() == {"Frames_tennis", "Frames_bag"}
    for [path] in state.values():
        assert len(path["relay_frame_ids"]) > 3
        keyed = dict(zip(path["relay_frame_ids"], path["bboxes"]))
        assert all(keyed[f][2:] in ([80, 120], [90, 80]) for f in path["key_frame_ids"])
