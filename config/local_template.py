"""Where this user's data lies. Copied to config/local.py on first use; edit the copy, it is never committed."""


class EnvironmentSettings:
    def __init__(self):
        # All that changes (checkpoints, records, results, reports); relative to the project folder.
        self.workspace_dir = "var"

        # Training sets. Leave out what you do not have.
        self.train_dataset_dirs = {
            # "LaSOT": "/data/LaSOT",              <class>/<class>-<n>/img, groundtruth.txt
            # "GOT-10k": "/data/GOT-10k",          train/<name>/*.jpg, train/list.txt
            # "TrackingNet": "/data/TrackingNet",  TRAIN_<n>/frames, TRAIN_<n>/anno
            # "COCO": "/data/coco",                annotations/instances_train2017.json, images/train2017
            # "Frames": "/data/my_videos",         one image folder or video file per video
        }

        # Benchmarks, by the names in docs/datasets.md.
        # A pysot-style {name}.json is looked for in the folder, beside it, and in seq_files_dir.
        self.test_dataset_dirs = {
            # "OTB100": "/data/OTB100",
            # "LaSOT": "/data/LaSOT",
        }
        self.seq_files_dir = ""
