"""A second of atheris for each parser of a state: that the programme runs, and finds nothing in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.faults
def test_a_second_of_coverage_guided_fuzzing(tmp_path):
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python or platform")
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.atheris_parsers",
        "--only",
        "sampler state",
        "--seconds",
        "1",
    ]
    done = subprocess.run(
        [*command, "--findings", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(lines) == 2 and all(line.endswith("executions  ok") for line in lines)
    assert all(int(line.split()[-3]) > 10 for line in lines)
