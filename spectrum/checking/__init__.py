"""Is everything still true: the scan file, the model, the names, the trainer's config? For CI, long after a scan."""

from spectrum.checking.checking import check_scan
from spectrum.checking.config import ListedConfig, read_listed_config
from spectrum.checking.findings import RULES, Area, Finding, Rule, located, of_error, ordered
from spectrum.checking.formats import FORMATS, Report, ReportFormat
from spectrum.checking.header import Header, unclear
from spectrum.checking.model import check_model
from spectrum.checking.scan_file import ScanFile, check_spectra, read_scan_file
from spectrum.exporting.axolotl_conflicts import Conflict, find_conflicts

__all__ = [
    "FORMATS", "RULES", "Area", "Conflict", "Finding", "Header", "ListedConfig",
    "Report", "ReportFormat", "Rule", "ScanFile",
    "check_model", "check_scan", "check_spectra", "find_conflicts", "located", "of_error", "ordered",
    "read_listed_config",
    "read_scan_file", "unclear",
]  # fmt: skip
