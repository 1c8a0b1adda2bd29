"""The whole chain on real video, through the command line: sample, train, kill, resume, test, evaluate."""

from __future__ import annotations

import json

import pytest

from ltr.data.sampler_state import SamplerState
from tests.e2e.user_folder import ROOT, UserFolder


@pytest.fixture(scope="module")
def undisturbed(shared, tmp_path_factory) -> UserFolder:
    """A run that nothing disturbed."""
    place = UserFolder(tmp_path_factory.mktemp("undisturbed"), shared("sequences"))
    sampler = "sampling/vanilla_sampling/key_frame_sampling.py"
    for dataset, split in (("LaSOT", "train"), ("GOT-10k", "vottrain"), ("TrackingNet", "0")):
        place.ok(
            sampler,
            "--dataset",
            dataset,
            "--split",
            split,
            "--num",
            "3",
            cwd=ROOT / "sampling/vanilla_sampling",
        )
    place.train()
    return place


def test_training_explores_and_leaves_what_it_should(undisturbed):
    state = json.loads(undisturbed.state().read_text())
    paths = [path for trajectories in state.values() for path in trajectories]
    assert sum(len(p["relay_frame_ids"]) - len(p["key_frame_ids"]) for p in paths) > 10
    assert all(p["relay_frame_ids"] == sorted(set(p["relay_frame_ids"])) for p in paths)
    log = undisturbed.log()
    assert [line["stage"] for line in log] == ["burn-in"] * 2 + ["sparse"] * 2
    assert log[-1]["explored"] > log[0]["explored"] and 0 < log[-1]["acceptance"] <= 1
    assert {p.name for p in undisturbed.checkpoints.glob("*_t.pth.tar")} == {
        "TransT_ep0003_t.pth.tar",
        "TransT_ep0004_t.pth.tar",
    }
    assert (undisturbed.checkpoints / "inputs/ep0003.png").stat().st_size > 1000


@pytest.mark.faults
def test_a_killed_run_ends_as_if_nothing_had_happened(undisturbed, shared, tmp_path):
    place = UserFolder(tmp_path / "killed", shared("sequences"))
    place.settings["paths.sampling_results"] = undisturbed.settings["paths.sampling_results"]
    place.train_until(place.checkpoints.is_dir, 0.3)  # in the first epochs
    place.train_until(lambda: place.saved(3))  # in the sparse stage
    place.train()
    expected, found = undisturbed.outcome(), place.outcome()
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == expected[name], name


@pytest.mark.faults
def test_what_was_located_since_the_checkpoint_is_on_disk(undisturbed, shared, tmp_path):
    place = UserFolder(tmp_path / "place", shared("sequences"))
    place.settings |= {
        "paths.sampling_results": undisturbed.settings["paths.sampling_results"],
        "train.epochs": "40",
        "train.save_interval": "3",
        "train.resume_interval": "3",
    }
    log = place.checkpoints / "train.jsonl"
    place.train_until(lambda: log.exists() and len(log.read_bytes().splitlines()) >= 8, 0.0)  # two after one
    records = place.var / "records"
    [snapshot] = [p for p in records.glob("sampler_state_*_0006.json")]
    recovered = SamplerState.recover(
        snapshot, records / "sampler_state_spot_transt_003.journal", tmp_path / "state.bin"
    )
    held = SamplerState.from_json(snapshot, tmp_path / "held.bin").recorded_frames()
    explored = [json.loads(line)["explored"] for line in log.read_text().splitlines()]
    frames = held / explored[5]
    assert recovered.recorded_frames() >= round(explored[7] * frames) > held


def test_two_processes_end_with_the_sampler_state_of_one(undisturbed, shared, tmp_path):
    states = []
    for ranks in (1, 2):
        place = UserFolder(tmp_path / str(ranks), shared("sequences"))
        place.settings |= {
            "paths.sampling_results": undisturbed.settings["paths.sampling_results"],
            "network.args.dropout": "0.0",  # each process draws its own
            "train.epochs": "3",
            "train.burn_in_epochs": "1",
        }
        place.train_in_processes(ranks)
        states.append(json.loads(place.state().read_text()))
    alone, together = states
    assert alone.keys() == together.keys()
    for key in alone:
        for one, two in zip(alone[key], together[key]):
            assert one["relay_frame_ids"] == two["relay_frame_ids"]
            # Sums over two halves round otherwise than over the whole.
            assert all(abs(a - b) <= 0.11 for m, n in zip(one["bboxes"], two["bboxes"]) for a, b in zip(m, n))


def test_a_run_is_not_continued_with_other_settings(undisturbed):
    before = undisturbed.outcome()
    undisturbed.settings["seed"] = "5"
    try:
        refused = undisturbed.run("scripts/run_training.py", "spot", "spot_transt_003")
    finally:
        del undisturbed.settings["seed"]
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "seed was 0, is 5" in refused.stderr and "--set variant NAME" in refused.stderr
    assert undisturbed.outcome() == before


def test_two_ranks_test_two_epochs_and_the_evaluation_names_every_figure(undisturbed):
    out = undisturbed.ok(
        "scripts/onekey.py", "--test", "--eval", "--module", "spot", "--arch", "transt", "--variant", "spot_transt_003",
        "--start_epoch", "3", "--end_epoch", "4", "--interval", "1", "--dataset", "OTB100", "--threads", "2", "--ts_tag", "t",
        "--device", "cpu",
    )  # fmt: skip
    for epoch in (3, 4):
        undisturbed.check_otb(out, epoch, "t")
    assert "pysot-ope" in out
    reports = list((undisturbed.var / "reports").rglob("*"))
    assert {".json", ".csv", ".png"} <= {path.suffix for path in reports}
