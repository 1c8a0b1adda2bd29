"""The house rules that a reader can check by looking, checked by looking at every file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("config", "sampling", "ltr", "pysot_toolkit", "scripts")
PLACES = (*ROOMS, "benchmarks", "tests")
TRACKERS_MAY = ("ltr.models", "ltr.ops", "ltr.data", "ltr.admin.checkpoint_reader")


def sources(*folders: str) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports, inside functions too; names of packages' modules in full."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                module = ".".join([*parts, *module.split(".")]).rstrip(".")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def allowed(path: Path, name: str) -> bool:
    """Whether the file may import ``name``: ``scripts -> {sampling, ltr, pysot_toolkit} -> config``."""
    room, target = path.relative_to(ROOT).parts[0], name.split(".")[0]
    if target not in PLACES or target in (room, "config"):
        return True
    if target in ("scripts", "benchmarks", "tests"):
        return False
    if room == "config":
        return False
    if room == "scripts":
        return True
    if room == "sampling":
        return within(name, ("ltr.dataset",))
    inner = path.relative_to(ROOT).parts[1]
    if room == "ltr":  # the settings of a training say which frames carry a label
        return inner == "train_settings" and within(name, ("sampling.key_frames",))
    if inner == "trackers":
        return within(name, TRACKERS_MAY)
    return inner == "datasets" and within(name, ("ltr.data_specs",))


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(room)
        for line, name in imports(path)
        if not allowed(path, name)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rule_itself_sees_through_every_form(tmp_path):
    probe = ROOT / "ltr" / "models" / "probe.py"  # never written: only its place counts
    assert not allowed(probe, "pysot_toolkit.trackers.base") and not allowed(probe, "scripts.test")
    assert allowed(probe, "config.errors.UserError") and allowed(probe, "torch.nn")
    assert not allowed(ROOT / "config" / "probe.py", "ltr.data.bbox")
    assert not allowed(ROOT / "sampling" / "probe.py", "ltr.data.bbox")
    assert allowed(ROOT / "sampling" / "probe.py", "ltr.dataset.base.open_spec")
    assert not allowed(ROOT / "pysot_toolkit" / "testing" / "probe.py", "ltr.data.crop")
    assert allowed(ROOT / "pysot_toolkit" / "trackers" / "probe.py", "ltr.data.crop.crop")
    assert not allowed(ROOT / "pysot_toolkit" / "trackers" / "probe.py", "ltr.dataset.base")
    file = tmp_path / "probe.py"
    file.write_text("def f():\n    from ltr.data import crop\n    import scripts.test as t\n")
    assert [name for _, name in imports(file)] == ["ltr.data.crop", "scripts.test"]


def _forbidden(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            yield node.lineno, ".cuda(): use .to(device)"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.system", "sys.path.append"):
            yield node.lineno, ast.unparse(node.func)
        if isinstance(node, ast.ExceptHandler):
            kinds = [] if node.type is None else getattr(node.type, "elts", [node.type])
            names = {ast.unparse(kind) for kind in kinds}
            passed_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if node.type is None or "Exception" in names or ("BaseException" in names and not passed_on):
                yield node.lineno, "an except that swallows what it does not know"


def test_no_shortcuts():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sources(*PLACES)
        for line, what in _forbidden(parsed(path))
    ]
    assert not wrong, "\n".join(wrong)
    probe = "x.cuda()\ntry:\n    pass\nexcept Exception:\n    pass\ntry:\n    pass\nexcept:\n    raise\nimport os; os.system('x')"
    assert sorted(line for line, _ in _forbidden(ast.parse(probe))) == [1, 4, 8, 10]


def test_files_can_be_read_in_one_go():
    long = {
        str(p.relative_to(ROOT)): n
        for p in sources(*PLACES)
        if (n := len(p.read_text("utf-8").splitlines())) > 600
    }
    assert not long


def test_registered_names_are_written_once():
    """A new tracker only adds files: no code compares the architecture's name."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(*ROOMS)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Compare) and ("arch" in ast.unparse(node.left).split("."))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_verb_starts_as_a_file_from_anywhere():
    """Each script makes the project importable before it imports from it, and ends through ``config.cli.run``."""
    for path in sorted((ROOT / "scripts").glob("*.py")):
        text = path.read_text("utf-8")
        assert "sys.path" in text.partition("from config")[0], path.name
        assert "run(" in text.rpartition('if __name__ == "__main__":')[2], path.name


def test_every_benchmark_can_be_run_by_make_bench():
    modules = [path for path in (ROOT / "benchmarks").glob("*.py") if not path.name.startswith("_")]
    assert len(modules) > 3
    for path in modules:
        tree = parsed(path)
        defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        slow = any(
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SLOW" for node in tree.body
        )
        assert "main" in defined, path
        assert ast.get_docstring(tree), path  # stands over its table
        if not slow:
            given = defined["measure"].args
            assert len(given.args) == len(given.defaults), f"{path}: measure() is called without arguments"
