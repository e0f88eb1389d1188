"""Is a scan file valid and complete, and are its spectra beside it?"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectrum.checking.findings import Finding, located, of_error, some
from spectrum.errors import ScanFileError
from spectrum.results import Scan, import_scan, read_spectra, scan_from_json
from spectrum.results.reader import load_json
from spectrum.results.scan import ParameterScore, Unscored
from spectrum.results.writer import FORMAT, VERSION
from spectrum.scanning.scoring import snr_again
from spectrum.spectra.snr import Array
from spectrum.untrusted import TwiceError

RESCAN = "Scan the model again, or get the file again."
# Across devices and thread counts scores agree to 1e-6 (DESIGN), and the spectra are those they were computed from.
SAME_SCORE = 1e-6


@dataclass(frozen=True)
class ScanFile:
    """A scan file after its checks.

    Attributes:
        path: of the file.
        scan: what it holds, imported in memory if it is an older one; None if it holds nothing usable.
        findings: about the file itself.
    """

    path: Path
    scan: Scan | None
    findings: tuple[Finding, ...]


def read_scan_file(path: Path) -> ScanFile:
    """Read a scan file or an older result file; whatever is wrong with it is a finding, never an exception."""
    try:
        value = load_json(path)
        text = path.read_text(encoding="utf-8")
    except ScanFileError as error:
        return _file(path, None, [_unreadable(path, error)])
    findings = list(_strictness(text))
    if isinstance(value, dict) and value.get("format") == FORMAT:
        return _native(path, value, text, findings)
    return _older(path, value, findings)


def check_spectra(scan: Scan, path: Path) -> Iterator[Finding]:
    """Compare the spectra file with the scan: its fingerprint, its lengths, and the scores that follow from it."""
    if scan.settings.origin is not None:
        return
    if not path.exists():
        message = f"'{path}' is missing: so no other noise model can be computed."
        yield Finding("SPC113", message, "Keep it beside the scan file.")
        return
    try:
        spectra = read_spectra(path, fingerprint=scan.model.fingerprint)
        again = [snr_again(item, spectra, scan.settings.noise_model) for item in scan.parameters]
    except ScanFileError as error:
        yield of_error("SPC114", error)
        return
    pairs = zip(scan.parameters, again, strict=True)
    wrong = [stored.name for stored, computed in pairs if not _same_scores(stored, computed)]
    if wrong:
        message = f"The spectra in '{path}' give other scores than the scan holds for {some(wrong)}."
        yield Finding("SPC114", message, RESCAN)


def _native(path: Path, value: dict[str, Any], text: str, findings: list[Finding]) -> ScanFile:
    if value.get("version") != VERSION:
        message = f"It has version {value.get('version')!r} of the scan format, this program reads {VERSION}."
        return _file(
            path, None, [*findings, Finding("SPC103", message, "Update spectrum-snr, or scan the model again.")]
        )
    try:
        scan = scan_from_json(value, source=str(path))
    except ScanFileError as error:
        if not any(finding.code == "SPC102" for finding in findings):
            findings.append(of_error("SPC105", error, line=_line_of(str(error), text)))
        return _file(path, None, findings)
    return _file(path, scan, [*findings, *_completeness(scan), *_imported(scan)])


def _older(path: Path, value: Any, findings: list[Finding]) -> ScanFile:
    try:
        scan = import_scan(path)
    except ScanFileError as error:
        return _file(path, None, [*findings, of_error("SPC105", error)])
    message = "This is a result file of the authors' program, not a scan file."
    findings.append(Finding("SPC104", message, "Scan the model, or convert the file with 'spectrum import'."))
    if not all(isinstance(entry, dict) and "snr" in entry for entry in value.values()):
        message = "It has the sorted schema, module type before layer, which only 'spectrum import' reads."
        findings.append(Finding("SPC106", message, "Convert it with 'spectrum import'."))
    return _file(path, scan, [*findings, *_imported(scan)])


def _file(path: Path, scan: Scan | None, findings: list[Finding]) -> ScanFile:
    return ScanFile(path, scan, tuple(located(findings, str(path))))


def _unreadable(path: Path, error: ScanFileError) -> Finding:
    cause = error.__cause__
    if not isinstance(cause, TwiceError):
        return of_error("SPC101", error, line=getattr(cause, "lineno", None))
    key = str(cause)
    message = f"It holds {some([key])} twice in one object; readers differ in which of them counts."
    return Finding("SPC102", message, RESCAN, line=_line_of_key(key, path.read_text(encoding="utf-8"), last=True))


def _strictness(text: str) -> Iterator[Finding]:
    constants: Counter[str] = Counter()
    if "NaN" in text or "Infinity" in text:  # a second parse takes its time
        json.loads(text, parse_constant=lambda name: constants.update([name]))
    for name, count in sorted(constants.items()):
        message = f"It holds {count} times {name}, which strict JSON does not have."
        yield Finding(
            "SPC102", message, "Scan the model; 'spectrum import' reads older files.", line=_constant(name, text)
        )


def _completeness(scan: Scan) -> Iterator[Finding]:
    entries: tuple[ParameterScore | Unscored, ...] = (*scan.parameters, *scan.unscored)
    if not scan.settings.complete:
        yield Finding("SPC107", "The scan is marked as not complete.", "Finish it with 'spectrum scan'.")
    twice = {item.name for item in scan.parameters} & {item.name for item in scan.unscored}
    if twice:
        yield Finding("SPC107", f"The scan lists {some(sorted(twice))} both with and without a score.", RESCAN)
    sizes = [math.prod(item.shape) for item in entries if item.shape is not None]
    total = scan.model.parameters
    if total is not None and len(sizes) == len(entries) and sum(sizes) != total:
        message = f"The parameters of the scan have {sum(sizes):,} weights, the model has {total:,}."
        yield Finding("SPC107", message, RESCAN)
    without = [item.name for item in scan.unscored if item.name not in scan.skipped]
    if without:
        yield Finding("SPC107", f"{some(without)} has no score, and no reason why.", RESCAN)


def _imported(scan: Scan) -> Iterator[Finding]:
    """What an older file does not say, or says wrongly."""
    if scan.settings.origin is None:
        return
    message = (
        f"Imported from '{scan.settings.origin}': no fingerprint, shapes or spectra, and names that nothing confirms."
    )
    yield Finding("SPC108", message, "Scan the model.")
    norms = [item.name for item in scan.parameters if item.kind == "norm"]
    if norms:
        message = (
            f"{len(norms)} norms have a score of the one singular value that a vector has: {some(norms, at_most=1)}."
        )
        yield Finding("SPC109", message, "Nothing needs to be done: --norms trains all of them or none.")
    routers = [item.name for item in scan.parameters if item.kind == "router"]
    if routers:
        message = f"{len(routers)} routers are ranked like weights: {some(routers, at_most=1)}."
        yield Finding("SPC110", message, "Leave them out with --exclude, or scan the model.")
    without = _layers_without_experts(scan)
    if routers and without:
        message = f"{without} layers have a router and no experts: the authors' program passed over fused experts."
        yield Finding("SPC111", message, "Scan the model.")
    if scan.skipped:
        message = f"{len(scan.skipped)} matrices have NaN instead of a score: {some(sorted(scan.skipped))}."
        yield Finding("SPC112", message, "Scan the model.")


def _layers_without_experts(scan: Scan) -> int:
    routed = {item.layer for item in scan.parameters if item.kind == "router"}
    return len(routed - {item.layer for item in scan.parameters if item.kind == "experts"})


def _same_scores(stored: ParameterScore, computed: Array) -> bool:
    """Whether the SNR of a parameter, and those of its matrices, are these; infinity stands for saturated."""
    matrices = stored.matrices or (stored,)
    written = [stored.snr, *(matrix.snr for matrix in matrices)]
    values = [math.inf if value is None else value for value in written]
    return bool(np.isclose([np.median(computed), *computed], values, rtol=SAME_SCORE, atol=0).all())


def _line_of(message: str, text: str) -> int | None:
    """Line of the parameter that a message of the reader names."""
    named = re.search(r"(?:parameters|unscored)\['([^']*)'\]", message)
    return _line_of_key(named.group(1), text) if named else None


def _line_of_key(key: str, text: str, *, last: bool = False) -> int | None:
    written = [f"{json.dumps(key, ensure_ascii=ascii_only)}:" for ascii_only in (False, True)]
    positions = [text.rfind(each) if last else text.find(each) for each in written]
    position = max(positions)
    return text.count("\n", 0, position) + 1 if position >= 0 else None


def _constant(name: str, text: str) -> int | None:
    found = re.search(rf"[:\[,]\s*{re.escape(name)}\b", text)
    return text.count("\n", 0, found.end()) + 1 if found else None
