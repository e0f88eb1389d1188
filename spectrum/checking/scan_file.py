"""Is a scan file valid and complete, and are its spectra beside it?"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spectrum.checking.findings import Finding, of_error, some
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


def read_scan_file(path: Path) -> tuple[Scan | None, list[Finding]]:
    """Read a scan file, or an older result file as `import` does; whatever is wrong with it is a finding."""
    try:
        value = load_json(path)
    except ScanFileError as error:
        cause = error.__cause__
        code = "SPC102" if isinstance(cause, TwiceError) else "SPC101"
        return None, [of_error(code, error, line=getattr(cause, "lineno", None))]
    findings = list(_constants(value))
    is_scan = isinstance(value, dict) and value.get("format") == FORMAT
    try:
        scan = scan_from_json(value, source=str(path)) if is_scan else import_scan(path)
    except ScanFileError as error:
        code = "SPC103" if is_scan and value.get("version") != VERSION else "SPC105"
        return None, [*findings, of_error(code, error)]
    if is_scan:
        return scan, [*findings, *_completeness(scan), *_imported(scan)]
    message = "This is a result file of the authors' program, not a scan file."
    remedy = "Scan the model, or convert the file with 'spectrum import'."
    return scan, [*findings, Finding("SPC104", message, remedy), *_imported(scan)]


def check_spectra(scan: Scan, path: Path) -> Iterator[Finding]:
    """Compare the spectra file with the scan: its fingerprint, its lengths, and the scores that follow from it."""
    if scan.settings.origin is not None:
        return
    if not path.exists():
        message = f"'{path}' is missing: no other noise model can be computed without it."
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


def _constants(value: object) -> Iterator[Finding]:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        message = "It holds NaN or Infinity, which strict JSON does not have."
        yield Finding("SPC102", message, "Scan the model; 'spectrum import' reads older files.")


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
        yield Finding("SPC107", f"{some(without)} has no score, and no reason is given.", RESCAN)


def _imported(scan: Scan) -> Iterator[Finding]:
    """What an older file does not say, or says wrongly."""
    if scan.settings.origin is None:
        return
    lacks = "no fingerprint, shapes or spectra, and names that nothing confirms"
    yield Finding("SPC108", f"Imported from '{scan.settings.origin}': {lacks}.", "Scan the model.")
    routers = [item for item in scan.parameters if item.kind == "router"]
    if routers:
        message = f"{len(routers)} routers are ranked like weights, such as '{routers[0].name}'."
        yield Finding("SPC110", message, "Leave them out with --exclude, or scan the model.")
    layers = {item.layer for item in scan.parameters if item.kind == "experts"}
    without = {item.layer for item in routers} - layers
    if without:
        message = f"{len(without)} layers have a router and no experts: the authors' program skips fused experts."
        yield Finding("SPC111", message, "Scan the model.")


def _same_scores(stored: ParameterScore, computed: Array) -> bool:
    """Whether the SNR of a parameter, and those of its matrices, are these; infinity means saturated."""
    matrices = stored.matrices or (stored,)
    written = [stored.snr, *(matrix.snr for matrix in matrices)]
    values = [math.inf if value is None else value for value in written]
    return bool(np.isclose([np.median(computed), *computed], values, rtol=SAME_SCORE, atol=0).all())
