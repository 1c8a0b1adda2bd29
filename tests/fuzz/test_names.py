"""Names that stand in files and settings lead to no place outside ``var/``."""

from __future__ import annotations

import json

import pytest
import torch

from config.environment import load_settings
from config.errors import UserError
from config.files import is_file_name
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.testing.results import result_file
from tests.fuzz.guard import listing

BAD = [
    "../../x",
    "..",
    ".",
    "/tmp/x",
    "a/b",
    "a\\b",
    "..\\..\\x",
    "C:\\x",
    "a\0b",
    "a\nb",
    "",
    "\x1b[2J",
    "\ud800",
    "x" * 300,
]
GOOD = [
    "person-1",
    "GOT-10k_Val_000001",
    "DiMP v1.2",
    "Überholt",
    "yo yo",
    "-abc",
    "a..b",
    "x~1",
    "TransT_ep0400_t",
]


def test_what_can_name_a_file():
    assert [name for name in BAD if is_file_name(name)] == []
    assert [name for name in GOOD if not is_file_name(name)] == []


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_names_in_files_and_settings_stay_inside(tmp_path, name):
    var = tmp_path / "a" / "b" / "var"
    before = listing(tmp_path)
    for names in ((name, "t", "s"), ("d", name, "s"), ("d", "t", name)):
        with pytest.raises(UserError, match="cannot name"):
            result_file(var, *names)
    if name:  # empty: the variant's name
        for key in ("variant", "module_name", "magic_number"):
            settings = load_settings(["paths.var", str(var), "variant", "v", "module_name", "m"])
            settings[key] = name
            with pytest.raises(UserError, match=rf"setting {key} .*cannot name"):
                Run(settings, "Net", ProcessGroup(0, 1, torch.device("cpu")))
    assert listing(tmp_path) == before

    entry = {"img_names": ["0.jpg"], "gt_rect": [[1, 2, 3, 4]]}
    (tmp_path / "Mine.json").write_text(json.dumps({name: entry}))
    settings = load_settings(["paths.var", str(var)])
    settings.paths.test["Mine"] = str(tmp_path)
    with pytest.raises(UserError, match=r"Mine\.json: (sequence|is not valid)"):
        open_benchmark("Mine", settings)
