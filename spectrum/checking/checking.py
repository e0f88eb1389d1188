"""Everything that can be told from a scan, a selection and a config, without the model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectrum.checking.config import ListedConfig
from spectrum.checking.findings import Finding, located, of_error
from spectrum.checking.lines import Line, check_lines
from spectrum.checking.names import check_names
from spectrum.errors import SelectionError
from spectrum.exporting.axolotl_conflicts import find_conflicts
from spectrum.results.scan import Scan
from spectrum.selection import Selection

LARGEST_BYTES = 2**20


def check_scan(
    scan: Scan,
    selection: Selection | None,
    *,
    config: ListedConfig | None = None,
    transformers: str | None = None,
) -> list[Finding]:
    """Check the names, the cut, and a config.

    Args:
        scan: that the selection was made from.
        selection: that the config should train; None where none can be made, and then it is not compared.
        config: of the trainer.
        transformers: version of the trainer's; None where it is not known.

    Returns:
        Findings; those on the config have its file, the others have none.
    """
    findings = list(check_names(scan, transformers=transformers))
    if selection is not None:
        findings += [_warned(warning) for warning in selection.warnings]
    if config is not None:
        try:
            findings += located(_check_config(config, scan, selection), config.path)
        except SelectionError as error:  # names that the scan speaks of, more than any model has
            findings.append(of_error("SPC105", error))
    return findings


def _warned(warning: str) -> Finding:
    return Finding("SPC601", warning, "Choose with other options, or accept it: the same scan gives the same choice.")


def _check_config(config: ListedConfig, scan: Scan, selection: Selection | None) -> Iterator[Finding]:
    lines: Sequence[Line] = ()
    if config.patterns is not None:
        findings, lines = check_lines(config.patterns, scan, selection)
        for finding in findings:
            # What speaks of no one line is put where the list begins.
            at = finding.line or config.config.line(["unfrozen_parameters"])
            yield Finding(finding.code, finding.message, finding.remedy, line=at)
    rows = any(line.pattern.rows is not None for line in lines)
    names = [name for line in lines for name in line.matched]
    for conflict in find_conflicts(_with_deepspeed(config), model=scan.model, rows=rows, names=names):
        yield Finding(conflict.code, conflict.message, conflict.remedy, line=config.config.line(conflict.keys))


def _with_deepspeed(config: ListedConfig) -> Mapping[str, Any]:
    """The values, with what stands in the file that `deepspeed` names where it can be read from here."""
    values = config.config.data
    named = values.get("deepspeed")
    if not isinstance(named, str):
        return values
    try:
        with Path(named).open(encoding="utf-8") as file:
            content = json.loads(file.read(LARGEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return values
    return {**values, "deepspeed": content} if isinstance(content, dict) else values
