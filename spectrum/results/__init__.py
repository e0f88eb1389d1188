"""Scan files and spectra files: written, read back and validated, imported from older shapes."""

from spectrum.results.legacy import import_scan
from spectrum.results.reader import read_scan, scan_from_json
from spectrum.results.scan import MatrixScore, Model, NameMapping, ParameterScore, Scan, Settings, Unscored
from spectrum.results.spectra import (
    Spectra,
    is_spectrum,
    matrix_key,
    read_all_spectra,
    read_extremes,
    read_fingerprint,
    read_spectra,
    spectra_file,
    write_spectra,
)
from spectrum.results.writer import check_writable, file_stem, replace_file, scan_to_json, write_scan

__all__ = [
    "MatrixScore", "Model", "NameMapping", "ParameterScore", "Scan", "Settings", "Spectra", "Unscored",
    "check_writable", "file_stem", "import_scan", "is_spectrum", "matrix_key", "read_all_spectra", "read_extremes",
    "read_fingerprint", "read_scan", "read_spectra", "replace_file", "scan_from_json", "scan_to_json", "spectra_file",
    "write_scan", "write_spectra",
]  # fmt: skip
