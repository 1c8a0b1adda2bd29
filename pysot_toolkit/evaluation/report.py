"""The outcome of an evaluation, and its JSON and CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import UserError, nearest
from config.files import write_json, write_text
from pysot_toolkit.evaluation.protocol import Protocol, Scores
from pysot_toolkit.evaluation.results import Fault


@dataclass(frozen=True)
class TrackerScores:
    """One tracker under one protocol."""

    overall: Scores | None  # None: not one usable result
    attributes: dict[str, Scores]
    attribute_counts: dict[str, int]  # sequences behind each attribute
    sequences: dict[str, Scores]


@dataclass(frozen=True)
class Report:
    """Scores of trackers on one benchmark; all scores are shares in [0, 1], speed is in frames per second."""

    dataset: str
    source: str  # the annotation that was read
    sequences: list[str]  # of the benchmark, in its order
    protocols: list[Protocol]  # the first one ranks
    scores: dict[str, dict[str, TrackerScores]]  # protocol -> tracker
    faults: dict[str, list[Fault]]  # tracker -> what was wrong with its files
    # tracker -> video -> overlap in each frame, float32 [N], NaN where the target is absent; empty unless asked for
    overlaps: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    # protocol -> tracker -> overall scores of each of its repetitions; empty unless asked for
    repetitions: dict[str, dict[str, list[Scores]]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of sequences of the benchmark."""
        return len(self.sequences)

    @property
    def trackers(self) -> list[str]:
        """All trackers, the best first."""
        return self.ranking(self.protocols[0])

    def ranking(self, protocol: Protocol) -> list[str]:
        """All trackers by the protocol's first column, the best first; those without results last."""
        table = self.scores[protocol.name]

        def key(name: str) -> tuple[float, str]:
            overall = table[name].overall
            if overall is None:
                return (math.inf, name)
            value = overall.values[protocol.columns[0].key]
            return (value if protocol.columns[0].better == "lower" else -value, name)

        return sorted(table, key=key)

    def value(self, tracker: str, key: str | None = None) -> float:
        """One overall score of the first protocol that has it (default: the one that ranks); NaN without results.

        Raises:
            UserError: unknown tracker or score.
        """
        key = key or self.protocols[0].columns[0].key
        if tracker not in self.faults:
            raise UserError(f"no tracker '{tracker}' in this report: {nearest(tracker, self.faults)}")
        for protocol in self.protocols:
            if any(column.key == key for column in protocol.columns):
                overall = self.scores[protocol.name][tracker].overall
                return overall.values[key] if overall else math.nan
        raise UserError(f"{self.dataset} has no score '{key}'")

    def usable(self, tracker: str, protocol: Protocol | None = None) -> int:
        """Sequences of which the tracker has a result that can be read, and that ``protocol`` does not refuse."""
        unread = {fault.sequence for fault in self.faults[tracker] if fault.kind in ("missing", "broken")}
        refused = (
            {
                fault.sequence
                for fault in self.faults[tracker]
                if fault.kind == "refused" and fault.detail.startswith(f"{protocol.name}: ")
            }
            if protocol
            else set()
        )
        return self.total - len(unread | refused)

    def write(self, folder: Path) -> list[Path]:
        """Write ``report.json`` and per protocol ``{protocol}_overall.csv``, ``_attributes.csv`` (where there
        are attributes) and ``_videos.csv`` into ``folder``; returns their paths.
        """
        paths = [folder / "report.json"]
        write_json(paths[0], self.plain(), indent=True)
        for protocol in self.protocols:
            for kind, rows in (
                ("overall", self._overall_rows(protocol)),
                ("attributes", self._attribute_rows(protocol)),
                ("videos", self._video_rows(protocol)),
            ):
                table = list(rows)
                if len(table) > 1:
                    paths.append(folder / f"{protocol.name}_{kind}.csv")
                    write_text(paths[-1], _csv(table))
        return paths

    def plain(self) -> dict[str, Any]:
        """Everything as plain values, NaN as None."""
        return {
            "dataset": self.dataset,
            "source": self.source,
            "sequences": self.total,
            "protocols": {protocol.name: self._plain_protocol(protocol) for protocol in self.protocols},
            "faults": {name: [fault._asdict() for fault in faults] for name, faults in self.faults.items()},
        }

    def _plain_protocol(self, protocol: Protocol) -> dict[str, Any]:
        return {
            "version": protocol.version,
            "source": protocol.source,
            "thresholds": {
                curve.key: curve.thresholds.tolist()
                for curve in protocol.curves
                if curve.thresholds is not None
            },
            "trackers": {
                name: {
                    "overall": _plain(table.overall),
                    "attributes": {
                        attribute: {**_plain(scores), "sequences": table.attribute_counts[attribute]}
                        for attribute, scores in table.attributes.items()
                    },
                    "sequences": {sequence: _plain(scores) for sequence, scores in table.sequences.items()},
                }
                for name, table in self.scores[protocol.name].items()
            },
        }

    def _overall_rows(self, protocol: Protocol) -> Iterable[list[Any]]:
        yield ["tracker", *(column.key for column in protocol.columns), "videos", "of", "faults"]
        for name in self.ranking(protocol):
            overall = self.scores[protocol.name][name].overall
            yield [
                name,
                *_cells(protocol, overall),
                self.usable(name, protocol),
                self.total,
                len(self.faults[name]),
            ]

    def _attribute_rows(self, protocol: Protocol) -> Iterable[list[Any]]:
        yield ["tracker", "attribute", *(column.key for column in protocol.columns), "videos"]
        for name in self.ranking(protocol):
            table = self.scores[protocol.name][name]
            for attribute, scores in table.attributes.items():
                yield [name, attribute, *_cells(protocol, scores), table.attribute_counts[attribute]]

    def _video_rows(self, protocol: Protocol) -> Iterable[list[Any]]:
        yield ["tracker", "video", *(column.key for column in protocol.columns), "fault"]
        for name in self.ranking(protocol):
            faults: dict[str, str] = {}
            for fault in self.faults[name]:
                faults.setdefault(fault.sequence, f"{fault.kind}: {fault.detail}")
            table = self.scores[protocol.name][name].sequences
            for sequence in self.sequences:
                yield [name, sequence, *_cells(protocol, table.get(sequence)), faults.get(sequence, "")]


def _cells(protocol: Protocol, scores: Scores | None) -> list[Any]:
    values = [scores.values[column.key] if scores else math.nan for column in protocol.columns]
    return ["" if math.isnan(value) else f"{value:.6f}" for value in values]


def _plain(scores: Scores | None) -> dict[str, Any]:
    if scores is None:
        return {}
    values = {key: None if math.isnan(value) else value for key, value in scores.values.items()}
    return {
        **values,
        "frames": scores.frames,
        "curves": {key: curve.tolist() for key, curve in scores.curves.items()},
    }


def _csv(rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
