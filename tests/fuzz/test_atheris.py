"""A second of atheris on the parsers that read the most hostile bytes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.faults
@pytest.mark.parametrize("name", ["checkpoint pickle 2", "sampler state file", "key frames"])
def test_a_second_of_coverage_guided_fuzzing(name, tmp_path):
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python; pip install -e .[fuzz]")
    command = [sys.executable, "-m", "tests.fuzz.atheris_parsers", "--only", name, "--seconds", "1"]
    done = subprocess.run(
        [*command, "--findings", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "executions  ok" in done.stdout, done.stdout + done.stderr
