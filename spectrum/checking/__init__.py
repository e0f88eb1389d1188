"""Is everything still true: the scan file, the model, the names, the trainer's config? For CI, long after a scan."""

from spectrum.checking.checking import Trainer, check, report
from spectrum.checking.findings import RULES, Area, Finding, Rule
from spectrum.checking.formats import FORMATS, Report, ReportFormat
from spectrum.checking.scan_file import check_spectra

__all__ = [
    "FORMATS",
    "RULES",
    "Area",
    "Finding",
    "Report",
    "ReportFormat",
    "Rule",
    "Trainer",
    "check",
    "check_spectra",
    "report",
]
