"""The verbs as users call them: bad input, the three stages, children that fail or are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from config.cli import run
from ltr.models.registry import build_network
from pysot_toolkit.testing import launch
from pysot_toolkit.testing.launch import run_child, under_mpi, under_torchrun
from scripts import onekey, test, test_epochs

ROOT = Path(__file__).resolve().parents[2]
NETWORK = {
    "backbone": "tiny",
    "hidden_dim": 16,
    "nheads": 2,
    "dim_feedforward": 32,
    "featurefusion_layers": 1,
}
CROPS = {"template_size": 32, "search_size": 64, "template_factor": 2.0, "search_factor": 4.0}


def call(verb, monkeypatch, *words: str) -> int:
    """Run a verb in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", [verb.__name__.rpartition(".")[2] + ".py", *words])
    with pytest.raises(SystemExit) as end:
        run(verb.main)
    return int(end.value.code or 0)


@pytest.fixture
def place(local, benchmark):
    """The var folder with the student and teacher of epochs 1 and 3 of ``spot_transt_003``."""
    var = local(OTB100=benchmark, GOT_10k=benchmark)
    folder = var / "checkpoints" / "ltr" / "spot" / "spot_transt_003"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    checkpoint = {
        "format": 1,
        "epoch": 1,
        "net_type": "TransT",
        "net": build_network("transt", NETWORK).state_dict(),
        "constructor": {"name": "transt", "args": NETWORK},
        "settings": {"data": CROPS},
    }
    for epoch in (1, 3):
        for tag in "st":
            torch.save(checkpoint, folder / f"TransT_ep{epoch:04d}_{tag}.pth.tar")
    return var


def written(var: Path) -> list[str]:
    """What lies under ``var`` beside the checkpoints."""
    files = (path.relative_to(var) for path in var.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.parts[0] != "checkpoints")


RESUME = ["--resume", "checkpoints/ltr/spot/spot_transt_003/TransT_ep0001_t.pth.tar"]
EPOCHS = ["--start_epoch", "1", "--end_epoch", "3", "--interval", "2", "--dataset", "OTB100"]
PROJECT = ["--proj_path", "ltr/spot/spot_transt_003"]
VARIANT = ["--module", "spot", "--variant", "spot_transt_003"]

WRONG = [
    (test, ["--dataset", "OTB100"], "--resume"),
    (test, ["--dataset", "OTB100", "--resume", "nothing.pth.tar"], "nothing.pth.tar"),
    (test, ["--dataset", "OTB10", *RESUME], "did you mean 'OTB100'?"),
    (test, ["--dataset", "LaSOT", *RESUME], "LaSOT"),
    (test, ["--dataset", "OTB100", *RESUME, "--arch", "trnst"], "did you mean 'transt'?"),
    (test, ["--dataset", "OTB100", *RESUME, "--video", "Shrt"], "did you mean 'Short'?"),
    (test, ["--dataset", "OTB100", *RESUME, "--name", "../x"], "../x"),
    (test, ["--dataset", "OTB100", *RESUME, "--device", "tpu"], "tpu"),
    (test, ["--dataset", "OTB100", *RESUME, "--set", "train.epoch", "3"], "train.epochs"),
    (test, ["--dataset", "OTB100", *RESUME, "--set", "tracker.window", "3"], "window_penalty"),
    (test, ["--dataset", "OTB100", *RESUME, "--epoch", "3"], "--epoch"),
    (test, ["--dataset", "OTB100", *RESUME, "--batch", "0"], "--batch 0"),
    (test_epochs, [*EPOCHS, *PROJECT, "--set", "testing.batch", "-1"], "--batch -1"),
    (onekey, ["--test", *VARIANT, *EPOCHS, "--batch", "0"], "--batch 0"),
    (test_epochs, [*EPOCHS], "--proj_path"),
    (test_epochs, [*EPOCHS, "--proj_path", "ltr/spot/other"], "ltr/spot/other"),
    (test_epochs, [*EPOCHS, *PROJECT, "--ts_tag", "x"], "--ts_tag"),
    (test_epochs, [*EPOCHS, *PROJECT, "--gpus", "0,x"], "--gpus"),
    (test_epochs, [*EPOCHS, *PROJECT, "--threads", "0"], "--threads"),
    (test_epochs, [*EPOCHS, *PROJECT, "--threads", "two"], "--threads"),
    (test_epochs, [*EPOCHS, *PROJECT, "--start_epoch", "5"], "--end_epoch 3"),
    (test_epochs, [*EPOCHS, *PROJECT, "--interval", "0"], "--interval 0"),
    (test_epochs, [*EPOCHS, *PROJECT, "--start_epoch", "2", "--end_epoch", "2"], "there are 1, 3"),
    (test_epochs, [*EPOCHS, *PROJECT, "--dataset", "OTB10"], "did you mean 'OTB100'?"),
    (onekey, [*VARIANT], "--train, --test, --eval"),
    (onekey, ["--train", "--module", "spt", "--variant", "x"], "did you mean 'spot'?"),
    (onekey, ["--train", "--module", "spot", "--variant", "spot_transt_004"], "did you mean 'spot_transt_00"),
    (onekey, ["--test", *VARIANT, "--dataset", "OTB100"], "--start_epoch"),
    (onekey, ["--test", *VARIANT, "--start_epoch", "1", "--end_epoch", "3"], "--dataset"),
    (onekey, ["--eval", *VARIANT, "--dataset", "OTB10"], "did you mean 'OTB100'?"),
    (onekey, ["--train", "--test", *VARIANT, *EPOCHS], "no epoch 1"),
    (onekey, ["--train", "--test", *VARIANT, *EPOCHS, "--set", "train.save_interval", "1"], "--ts_tag s"),
    (onekey, ["--eval", *VARIANT, "--dataset", "OTB100", "--set", "trian.epochs", "1"], "train.epochs"),
]


@pytest.mark.parametrize(
    "verb, words, hint", WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else None
)
def test_bad_input_is_one_line_and_writes_nothing(place, monkeypatch, capsys, verb, words, hint):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert call(verb, monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ") and hint in err
    assert written(place) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_damaged_checkpoint_is_one_line(place, monkeypatch, capsys, damage):
    path = place / RESUME[1]
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "foreign": b"GIF89a" * 99}[damage])
    assert call(test, monkeypatch, "--dataset", "OTB100", *RESUME, "--device", "cpu") == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and path.name in err
    assert written(place) == []


def test_test_tracks_one_video_and_draws_it(place, monkeypatch, capsys):
    words = ["--dataset", "OTB100", *RESUME, "--device", "cpu", "--video", "Short", "--vis"]
    assert call(test, monkeypatch, *words) == 0
    names = written(place)
    assert "results/OTB100/spot_transt_003_ep0001_t/Short.txt" in names
    assert "reports/OTB100/spot_transt_003_ep0001_t/Short.png" in names
    assert not any("Long" in name for name in names) and "\x1b" not in capsys.readouterr().out


def test_a_missing_epoch_is_named_and_the_others_are_tested(place, monkeypatch, capsys):
    words = [*EPOCHS, *PROJECT, "--interval", "1", "--device", "cpu", "--ts_tag", "s"]
    assert call(test_epochs, monkeypatch, *words) == 2
    err = capsys.readouterr().err
    assert "epoch 2" in err and "tag s" in err
    folders = sorted(path.name for path in (place / "results" / "OTB100").iterdir())
    assert folders == ["spot_transt_003_ep0001_s", "spot_transt_003_ep0003_s"]


# -- stages ---------------------------------------------------------------------------------------


@pytest.fixture
def stages(place, tmp_path, monkeypatch):
    """The three verbs replaced by a script that notes how it was called; its exit code can be set."""
    log, codes = tmp_path / "calls.txt", {}

    def stand_in(name: str) -> list[str]:
        code = (
            f"import sys; open({str(log)!r}, 'a').write({name!r} + ' ' + ' '.join(sys.argv[1:]) + '\\n')\n"
            f"if {codes.get(name, 0)}: print('error: the child says why', file=sys.stderr)\n"
            f"sys.exit({codes.get(name, 0)})"
        )
        return [sys.executable, "-c", code]

    monkeypatch.setattr(onekey, "script", stand_in)
    return codes, lambda: log.read_text().splitlines() if log.exists() else []


def test_onekey_hands_everything_on(stages, monkeypatch):
    words = ["--train", "--test", "--eval", *VARIANT, "--arch", "transt", "--start_epoch", "325"]
    words += ["--end_epoch", "400", "--interval", "25", "--dataset", "OTB100", "--gpus", "0,1"]
    words += [
        "--ts_tag",
        "t",
        "--batch",
        "8",
        "--set",
        "seed",
        "7",
        "--set",
        "threads",
        "1",
        "--device",
        "cpu",
    ]
    assert call(onekey, monkeypatch, *words) == 0
    common = "--set seed 7 --set threads 1 --device cpu"
    assert stages[1]() == [
        f"run_training.py spot spot_transt_003 {common}",
        "test_epochs.py --interval 25 --start_epoch 325 --end_epoch 400 --dataset OTB100 --threads 1 --gpus 0,1 "
        f"--proj_path ltr/spot/spot_transt_003 --arch transt --batch 8 --ts_tag t {common}",
        f"eval.py --dataset OTB100 --num 1 --vis --tracker_prefix spot_transt_003_ep {common}",
    ]


@pytest.mark.parametrize(
    "combination", [("--eval",), ("--test", "--eval"), ("--train", "--eval"), ("--train",)]
)
def test_any_combination_of_stages(stages, monkeypatch, combination):
    words = ["--start_epoch", "25", "--end_epoch", "25", "--dataset", "OTB100"]
    assert call(onekey, monkeypatch, *combination, *VARIANT, *words) == 0
    verbs = {"--train": "run_training.py", "--test": "test_epochs.py", "--eval": "eval.py"}
    assert [line.split()[0] for line in stages[1]()] == [verbs[stage] for stage in combination]


@pytest.mark.parametrize(
    "name, code, after", [("run_training.py", 2, 1), ("test_epochs.py", 1, 2), ("eval.py", 7, 3)]
)
def test_a_failing_stage_stops_the_chain(stages, monkeypatch, capfd, name, code, after):
    stages[0][name] = code
    words = [
        "--train",
        "--test",
        "--eval",
        *VARIANT,
        "--start_epoch",
        "75",
        "--end_epoch",
        "75",
        "--dataset",
        "OTB100",
    ]
    assert call(onekey, monkeypatch, *words) == code
    assert len(stages[1]()) == after
    out, err = capfd.readouterr()
    assert err == "error: the child says why\n" and f"exit code {code}" in out


def test_the_fully_supervised_baseline_goes_the_same_way(stages, monkeypatch, capsys):
    words = ["--train", "--test", "--module", "transt", "--variant", "transt50", "--dataset", "OTB100"]
    words += ["--start_epoch", "400", "--end_epoch", "400"]
    assert call(onekey, monkeypatch, *words) == 2 and "--ts_tag s" in capsys.readouterr().err
    assert call(onekey, monkeypatch, *words, "--ts_tag", "s") == 0
    assert "--proj_path ltr/transt/transt50" in stages[1]()[1]


# -- children -------------------------------------------------------------------------------------


def test_exit_codes_of_children():
    assert run_child([sys.executable, "-c", "raise SystemExit(5)"]) == 5
    assert run_child([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 137


@pytest.mark.faults
@pytest.mark.parametrize(
    "what", ["UserError('mend it')", "KeyboardInterrupt", "OSError('no such thing')", "SystemExit(143)", None]
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_one_of_many_processes_leaves_without_waiting_for_what_it_holds(what, processes):
    code = (
        "import atexit, sys\n"
        "from config.cli import run\nfrom config.errors import UserError\n"
        "atexit.register(lambda: print('freed', file=sys.stderr))\n"
        "def verb():\n    print('begun')\n" + (f"    raise {what}\n" if what else "") + "run(verb)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"WORLD_SIZE": processes, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    expected = {
        "UserError('mend it')": (2, "error: mend it"),
        "KeyboardInterrupt": (130, "interrupted; what was finished is kept"),
        "OSError('no such thing')": (1, "OSError: no such thing"),
        "SystemExit(143)": (143, None),  # what SIGTERM becomes
        None: (0, None),
    }
    assert done.stdout == "begun\n"
    said: list[str | None] = [*done.stderr.splitlines()]
    if processes == "1" or what is None:
        assert said.pop() == "freed"
    assert (done.returncode, said[-1] if said else None) == expected[what]


def test_one_process_needs_no_mpi(monkeypatch, tmp_path):
    monkeypatch.setattr(launch.sys, "executable", str(tmp_path / "python"))
    assert under_mpi(["x"], 1) == ["x"]
    with pytest.raises(Exception, match="pip install mpich mpi4py, or use --threads 1"):
        under_mpi(["x"], 2)


def test_torchrun_starts_a_process_per_gpu(monkeypatch):
    from config.environment import load_settings

    settings = load_settings()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    command, environment = under_torchrun(["python", "train.py", "spot"], [1, 3], settings)
    assert command == [
        *["python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py", "spot"]
    ]
    assert environment == {"CUDA_VISIBLE_DEVICES": "1,3"}
    assert under_torchrun(["python", "x"], [2], settings) == (["python", "x"], {"CUDA_VISIBLE_DEVICES": "2"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert under_torchrun(["python", "x"], [1], settings)[1] == {"CUDA_VISIBLE_DEVICES": "5"}
    with pytest.raises(Exception, match="CUDA devices 0 to 3"):
        under_torchrun(["python", "x"], [4], settings)


def parent_of(child: str) -> subprocess.Popen:
    """A process that runs the code ``child`` in a child of its own, as onekey does with its stages."""
    parent = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from config.cli import run\nfrom pysot_toolkit.testing.launch import run_child\n"
        f"run(lambda: run_child([sys.executable, '-c', {child!r}]))\n"
    )
    # A suite that a shell started in the background ignores Ctrl-C; its children must not.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    return process


@pytest.mark.parametrize("sign, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_reaches_the_child(tmp_path, sign, code):
    note = tmp_path / "note"
    child = (
        f"import os, pathlib, time; note = pathlib.Path({str(note)!r})\n"
        "try:\n    note.write_text(str(os.getpid())); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    note.write_text('interrupted')\n    raise SystemExit(130)\n"
    )
    process = parent_of(child)
    limit = time.monotonic() + 30
    while not (note.exists() and note.read_text()) and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(sign)
    process.communicate(timeout=20)
    assert process.returncode == code and note.read_text() == "interrupted"


@pytest.mark.faults
def test_a_second_ctrl_c_ends_a_child_that_takes_its_time(tmp_path):
    note = tmp_path / "note"
    child = (
        f"import os, pathlib, time; note = pathlib.Path({str(note)!r})\n"
        "try:\n    note.write_text(str(os.getpid())); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    note.write_text(f'saving {os.getpid()}'); time.sleep(60)\n"
    )
    process = parent_of(child)
    for said in ("", "saving"):
        limit = time.monotonic() + 30
        while not (note.exists() and note.read_text().startswith(said or tuple("123456789"))):
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text().split()[1]), 0)


@pytest.mark.slow
def test_verbs_run_from_any_folder(place, tmp_path):
    """As a file, from elsewhere and without an installed package, under mpiexec by itself."""
    words = [*EPOCHS, *PROJECT, "--threads", "2", "--gpus", "0,1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "test_epochs.py"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "6 sequences tracked" in done.stdout and "\x1b" not in done.stdout + done.stderr
    assert len(list((place / "results" / "OTB100").rglob("*.txt"))) == 6
    help_text = subprocess.run(
        [sys.executable, "onekey.py", "--help"], cwd=ROOT / "scripts", capture_output=True, text=True
    )
    assert help_text.returncode == 0 and "--ts_tag" in help_text.stdout
