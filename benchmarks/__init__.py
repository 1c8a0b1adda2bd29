"""What measures speed, each a ratio against something in the same run.

A benchmark is a module of this folder whose name does not begin with ``_``::

    '''One paragraph that says what is measured and against what: it stands over the table.'''

    from benchmarks import Row, paired, rates, scaled, table

    def measure() -> list[Row]:
        ours, plain = paired(lambda: fast(data), lambda: straightforward(data), repeat=5)
        return [Row("frames", "ms", scaled(ours, 1e3), scaled(plain, 1e3), target=2.0)]

    def main() -> None:
        say(table(measure()))

    if __name__ == "__main__":
        run(main)

``measure()`` takes no argument that has no default and checks that both sides agree. A ``Row`` has a number per
repetition of ours and of the baseline, so that the page can tell the spread. ``python -m benchmarks.NAME`` runs one
and prints; ``python -m benchmarks`` (``make bench``) runs ``measure()`` of all, each in a process of its own with one
CPU thread, and writes ``docs/benchmarks.md``: together they are to stay within a quarter of an hour. A module with
``SLOW = "how long"`` is named there, and not run.
"""

from benchmarks._rows import Row, paired, rates, scaled, table, timed

__all__ = ["Row", "paired", "rates", "scaled", "table", "timed"]
