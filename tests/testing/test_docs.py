"""What the pages say is what the verbs take."""

from __future__ import annotations

import ast
import re
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
