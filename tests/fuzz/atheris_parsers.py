"""Coverage-guided fuzzing of the table of parsers by atheris: ``python -m tests.fuzz.atheris_parsers --seconds 10``.

Each parser runs in a process of its own, since libFuzzer ends the process at the first fault; the bytes that did it are
kept in the folder of ``--findings``. Needs ``pip install -e .[fuzz]``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Fuzz all parsers, or those whose name holds the given text; the exit code is 1 where one failed."""
    parser = argparse.ArgumentParser(description="fuzz every parser with atheris")
    parser.add_argument("--seconds", type=int, default=10, help="for each parser")
    parser.add_argument("--only", default="", help="parsers whose name holds this text")
    parser.add_argument("--findings", type=Path, default=Path("var/cache/fuzz"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        fuzz(options.one, options.seconds, options.findings)
    from tests.fuzz.parsers import PARSERS

    failed = []
    for name in PARSERS:
        if options.only not in name:
            continue
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.atheris_parsers",
            "--one",
            name,
            "--seconds",
            str(options.seconds),
        ]
        done = subprocess.run(
            [*command, "--findings", str(options.findings)], capture_output=True, text=True, errors="replace"
        )
        counts = re.findall(r"stat::number_of_executed_units: +(\d+)", done.stderr)
        print(
            f"{name:40} {counts[-1] if counts else '?':>9} executions  {'ok' if done.returncode == 0 else 'FAILED'}",
            flush=True,
        )
        if done.returncode:
            failed.append(name)
            print("\n".join(done.stderr.splitlines()[-25:]), flush=True)
    return 1 if failed else 0


def fuzz(name: str, seconds: int, findings: Path) -> None:
    """Fuzz one parser; never returns."""
    import atheris

    with atheris.instrument_imports(
        include=["config", "sampling", "ltr", "pysot_toolkit", "zipfile", "tarfile", "pickle"]
    ):
        from tests.fuzz.guard import check
        from tests.fuzz.parsers import PARSERS

    parser = PARSERS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        folder.mkdir()
        case = parser.build(folder)
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        for number, data in enumerate(case.examples):
            (corpus / str(number)).write_bytes(data)
        kept = findings / re.sub(r"\W+", "_", name)
        kept.mkdir(parents=True, exist_ok=True)

        def one(data: bytes) -> None:
            check(parser, case, data)

        longest = max(4096, *(2 * len(data) for data in case.examples))
        atheris.Setup(
            [sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-max_len={longest}", "-timeout=30",
             "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={kept}/", "-seed=1", "-verbosity=0"],
            one,
        )  # fmt: skip
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
