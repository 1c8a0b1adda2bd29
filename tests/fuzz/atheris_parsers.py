"""Coverage-guided fuzzing of the table of parsers by atheris: ``python -m tests.fuzz.atheris_parsers --seconds 10``.

Each parser runs in a process of its own, since libFuzzer ends the process at the first fault; the bytes that did it are
kept in the folder of ``--findings``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["config", "sampling", "ltr", "pysot_toolkit", "pickle", "tarfile", "zipfile"]
):
    import cv2

    from tests.fuzz.case import Parser
    from tests.fuzz.guard import check
    from tests.fuzz.parsers import PARSERS


def main() -> int:
    """Fuzz all parsers, or those whose name holds the given text; the exit code is 1 where one failed."""
    options = argparse.ArgumentParser(description="fuzz every parser with atheris")
    options.add_argument("--seconds", type=int, default=10, help="for each parser")
    options.add_argument("--only", default="", help="parsers whose name holds this text")
    options.add_argument("--findings", type=Path, default=Path("var/cache/fuzz"))
    given = options.parse_args()
    cv2.setNumThreads(1)  # threads do not survive the fork
    failed = 0
    for name, parser in PARSERS.items():
        if given.only not in name:
            continue
        kept = given.findings / re.sub(r"\W+", "_", name)
        kept.mkdir(parents=True, exist_ok=True)
        log = kept / "log"
        with tempfile.TemporaryDirectory() as scratch:
            child = os.fork()
            if child == 0:
                fuzz(parser, given.seconds, Path(scratch), kept, log)
            wrong = os.waitpid(child, 0)[1] != 0
        said = log.read_text(errors="replace")
        executed = re.findall(r"stat::number_of_executed_units: +(\d+)", said)
        print(f"{name:40} {executed[-1] if executed else '?':>9} executions  {'FAILED' if wrong else 'ok'}")
        if wrong:
            failed += 1
            print("\n".join(said.splitlines()[-25:]))
        sys.stdout.flush()
    return 1 if failed else 0


def fuzz(parser: Parser, seconds: int, scratch: Path, kept: Path, log: Path) -> None:
    """Fuzz one parser in this process and end it.

    Args:
        scratch: an empty folder.
        kept: folder for the bytes that a fault needs.
        log: file for what libFuzzer says.
    """
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    folder, corpus = scratch / "case", scratch / "corpus"
    folder.mkdir()
    corpus.mkdir()
    case = parser.build(folder)
    for number, data in enumerate(case.examples):
        (corpus / str(number)).write_bytes(data)
    longest = max(4096, *(2 * len(data) for data in case.examples))
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-max_len={longest}", "-timeout=30", "-seed=1",
         "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={kept}/"],
        lambda data: check(parser, case, data),
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
