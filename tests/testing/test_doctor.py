"""The doctor: what it finds, what it calls broken, and that a broken part does not stop it."""

from __future__ import annotations

import sys

import pytest

from config.cli import run
from scripts import doctor
from tests.conftest import need_shared


@pytest.fixture
def consult(monkeypatch, capsys):
    """Run the doctor; its exit code and text."""

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["doctor.py", *words])
        with pytest.raises(SystemExit) as end:
            run(doctor.main)
        return int(end.value.code or 0), capsys.readouterr().out

    return call


def line(text: str, what: str) -> str:
    found = [row for row in text.splitlines() if row.split()[1:2] == [what]]
    assert len(found) == 1, f"{what} in\n{text}"
    return found[0]


def test_a_fresh_clone_is_not_broken(local, consult):
    var = local()
    code, text = consult()
    assert code == 0 and text.splitlines()[-1] == "nothing is broken" and "\x1b" not in text
    assert "absent" in line(text, "OTB100") and "absent" in line(text, "LaSOT:train")
    assert str(var) in line(text, "var") and "GB free" in line(text, "var")
    for what in ("torch", "mpiexec", "mpi4py", "torchrun", "resnet50", "LaSOT_train_kf_003"):
        line(text, what)
    assert "--set paths.test.OTB100 FOLDER" in text and "key_frame_sampling.py --dataset LaSOT" in text


def test_it_counts_what_is_there(local, consult, shared_otb):
    local(OTB100=shared_otb)
    lasot = need_shared("sequences", "LaSOT")
    code, text = consult("--set", "paths.train.LaSOT", str(lasot), "--device", "cpu")
    assert code == 0 and "3 sequences" in line(text, "OTB100")
    assert " videos, " in line(text, "LaSOT:train") and "cpu" in line(text, "device")


def test_what_is_broken_is_named(local, consult, tmp_path, benchmark):
    local(OTB100=tmp_path / "gone", GOT_10k=benchmark)
    (tmp_path / "file").write_text("")
    words = [
        "--set",
        "paths.train.LaSOT",
        str(tmp_path),
        "--set",
        "paths.var",
        str(tmp_path / "file" / "var"),
    ]
    code, text = consult(*words, "--device", "cuda:99")
    assert code == 1
    for what in ("OTB100", "GOT-10k", "LaSOT:train", "var", "device"):
        assert line(text, what).split()[0] == "broken", what
    assert text.splitlines()[-1] == "5 broken"


def test_a_broken_part_does_not_hide_the_others(local, consult, monkeypatch, tmp_path):
    local()
    monkeypatch.setitem(sys.modules, "ltr.models.backbone.pretrained", None)
    monkeypatch.setitem(sys.modules, "pysot_toolkit.testing.ranks", None)
    code, text = consult()
    assert code == 1 and text.splitlines()[-1] == "2 broken"
    assert "broken  ranks" in text and "broken  weights" in text and "pretrained" in text
    assert "absent" in line(text, "OTB100")


def test_a_key_frame_file_of_another_split_is_broken(local, consult, tmp_path):
    local()
    (tmp_path / "LaSOT_train_kf_003.json").write_text(
        '{"fs_settings": {"dataset": "LaSOT", "split": "test", "mode": "key_frames", "num": 3}, '
        '"failure_seqs": [], "sparse_sample_result": {}}'
    )
    code, text = consult("--set", "paths.sampling_results", str(tmp_path))
    assert code == 1 and line(text, "LaSOT_train_kf_003").split()[0] == "broken"


def test_a_wrong_setting_is_one_line(local, monkeypatch, capsys):
    local()
    monkeypatch.setattr(sys, "argv", ["doctor.py", "--set", "path.var", "x"])
    with pytest.raises(SystemExit) as end:
        run(doctor.main)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and len(err.splitlines()) == 1 and "paths.var" in err
