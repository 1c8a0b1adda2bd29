"""The table of all that reads a file somebody else may have written, with valid examples of each kind of file.

``build(folder)`` lays out everything around one file and says which file it is and how to read it. Whatever bytes
stand in that file, reading it returns or raises ``UserError`` (``BadImage`` for images), in one line that names the
file; it never takes long, needs more memory than the file can justify, or writes outside ``folder``.
"""

from __future__ import annotations

from tests.fuzz import benchmark_cases, checkpoint_cases, training_cases
from tests.fuzz.case import Parser

PARSERS: dict[str, Parser] = {
    parser.name: parser
    for cases in (training_cases, benchmark_cases, checkpoint_cases)
    for parser in cases.table()
}
