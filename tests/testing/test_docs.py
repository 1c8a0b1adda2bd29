"""What the pages say is what the verbs take."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from config.defaults import get_defaults

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def options(verb: Path) -> set[str]:
    """The options that a verb declares, and those of every verb."""
    calls = (node for node in ast.walk(ast.parse(verb.read_text())) if isinstance(node, ast.Call))
    named = (
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    )
    return {name for name in named if name.startswith("-")} | {"--set", "--device", "--help"}


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """(path of the verb, its options) of every command of ours in the code blocks of a page."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [re.search(r"(?:^|\s)((?:scripts|sampling)/\S+\.py)(.*)", line) for line in lines]
    return [(match[1], re.findall(r"(?<!\S)--?[a-z_]+", match[2])) for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_settings_exist(page):
    for verb, given in commands(page):
        assert (ROOT / verb).exists(), f"{page.name}: {verb}"
        assert set(given) <= options(ROOT / verb), f"{page.name}: {verb} {given}"
    known = dict(get_defaults().flat())
    groups = {"train", "test"}  # of paths: names of data sets are free
    for key in re.findall(r"--set ([a-z_.]+)", page.read_text()):
        section = key.split(".")
        free = section[0] in ("tracker", "objective") or (section[0] == "paths" and section[1] in groups)
        free = free or key.startswith("network.args")
        assert free or key in known, f"{page.name}: --set {key}"


def test_the_quickstart_shows_every_verb():
    shown = {verb for verb, _ in commands(ROOT / "docs" / "quickstart.md")}
    users = {
        f"scripts/{name}.py" for name in ("onekey", "run_training", "test", "test_epochs", "eval", "doctor")
    }
    assert users <= shown


def test_batch_scripts_are_scripts():
    page = (ROOT / "docs" / "clusters.md").read_text()
    scripts = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert sum("#SBATCH" in script for script in scripts) == 2
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_training_script_saves_and_goes_back_into_the_queue(tmp_path):
    """Under commands that stand in for SLURM's: the signal reaches the step, whose end is awaited."""
    page = (ROOT / "docs" / "clusters.md").read_text()
    [script] = [s for s in re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S) if "--max-restarts" in s]
    fakes = {
        "scontrol": 'echo "scontrol $*" >> calls; [ "$1" = requeue ] || echo node1',
        "scancel": 'echo "scancel $*" >> calls; kill -TERM $(cat step)',
        "srun": "trap 'sleep 0.3; echo saved >> calls; exit 143' TERM; echo $$ > step; while :; do sleep 0.05; done",
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2"}
    batch = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    limit = time.monotonic() + 60
    while not (tmp_path / "step").exists() and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(0.2)
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(60) == 143
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [
        "scontrol show hostnames node[1-2]",
        "scancel --signal=TERM 7.0",
        "saved",
        "scontrol requeue 7",
    ]
