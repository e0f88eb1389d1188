"""What a check can find: one table of rules, and one finding as a value."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

Severity = Literal["error", "warning", "note"]
Area = Literal["scan", "model", "names", "config", "trainer", "selection"]


@dataclass(frozen=True)
class Rule:
    """One row of the table. Its code never changes its meaning, and that of a removed rule is not used again.

    An error fails the check; a warning fails it with --strict.
    """

    code: str
    area: Area
    severity: Severity
    what: str


RULES = (
    Rule("SPC101", "scan", "error", "the scan file is missing, empty or not JSON"),
    Rule("SPC102", "scan", "error", "NaN, Infinity or a doubled key, which strict JSON does not have"),
    Rule("SPC103", "scan", "error", "another version of the scan format"),
    Rule("SPC104", "scan", "error", "an older result file that was not imported"),
    Rule("SPC105", "scan", "error", "a field is missing or wrong, or no score can be used"),
    Rule("SPC107", "scan", "error", "the scan is not complete: parameters are missing or listed twice"),
    Rule("SPC108", "scan", "warning", "an imported scan: nothing in it tells which weights it is of"),
    Rule("SPC110", "scan", "warning", "an imported scan ranks routers"),
    Rule("SPC111", "scan", "error", "layers with a router have no experts: fused experts were not scored"),
    Rule("SPC113", "scan", "warning", "the spectra file is not beside the scan file"),
    Rule("SPC114", "scan", "error", "the spectra file is damaged, of other weights, or gives other scores"),
    Rule("SPC201", "model", "error", "the checkpoint cannot be opened"),
    Rule("SPC202", "model", "error", "other tensors than the scan's: names, dtypes or shapes"),
    Rule("SPC203", "model", "error", "the same tensors with other weights"),
    Rule("SPC204", "model", "error", "another revision than the scan's"),
    Rule("SPC205", "model", "warning", "scan and checkpoint have no evidence in common to compare the weights by"),
    Rule("SPC206", "model", "note", "files of the checkpoint are younger than the scan; samples of them are the same"),
    Rule("SPC301", "names", "warning", "the names were not made by building the model"),
    Rule("SPC302", "names", "error", "the names are of another major version of transformers than the trainer's"),
    Rule("SPC303", "names", "warning", "the names are of another minor version of transformers than the trainer's"),
    Rule("SPC304", "names", "error", "experts are named as in transformers 4, the trainer has a later version"),
    Rule("SPC305", "names", "note", "which transformers will train is not known"),
    Rule("SPC306", "names", "error", "the installed transformers names the parameters of this checkpoint differently"),
    Rule("SPC401", "config", "error", "the config is not a YAML mapping that can be read"),
    Rule("SPC402", "config", "error", "no unfrozen_parameters: everything would be trained"),
    Rule("SPC403", "config", "error", "unfrozen_parameters is not a list of strings"),
    Rule("SPC404", "config", "error", "unfrozen_parameters occurs twice; the last one counts"),
    Rule("SPC405", "config", "error", "a line is not a regular expression"),
    Rule("SPC406", "config", "error", "a line is too intricate to be matched in bounded time"),
    Rule("SPC407", "config", "error", "a line matches nothing"),
    Rule("SPC408", "config", "error", "a line with escaped dots, which match nothing in Axolotl"),
    Rule("SPC409", "config", "error", "a line names a tensor of the checkpoint that the trained model does not have"),
    Rule("SPC410", "config", "warning", "a line names the head of a model that ties it to the embedding: no effect"),
    Rule("SPC411", "config", "error", "a line without an end matches longer names too: mlp.gate, mlp.gate_proj"),
    Rule("SPC413", "config", "error", "a range of rows that the parameter does not have"),
    Rule("SPC414", "config", "warning", "a range of rows: weight decay still changes the others"),
    Rule("SPC415", "config", "error", "parameters are trained that the selection does not hold"),
    Rule("SPC416", "config", "error", "parameters of the selection are not trained"),
    Rule("SPC417", "config", "warning", "a line names nothing in an imported scan, which does not list all parameters"),
    Rule("SPC418", "config", "warning", "the header does not say how the list was chosen: it was not compared"),
    Rule("SPC501", "trainer", "error", "adapter: the list freezes the adapter's weights"),
    Rule("SPC502", "trainer", "error", "reentrant gradient checkpointing"),
    Rule("SPC503", "trainer", "error", "FSDP 1 without use_orig_params"),
    Rule("SPC504", "trainer", "error", "ZeRO-3 with a range of rows"),
    Rule("SPC505", "trainer", "error", "base_model is not the scanned model"),
    Rule("SPC506", "trainer", "error", "Axolotl's Spectrum plugin is enabled: it replaces the list"),
    Rule("SPC507", "trainer", "error", "load_in_8bit or load_in_4bit: quantised weights cannot be trained"),
    Rule("SPC508", "trainer", "error", "revision_of_model is not the scanned revision"),
    Rule("SPC509", "trainer", "error", "Axolotl loads another class: type_of_model is missing or different"),
    Rule("SPC510", "trainer", "error", "freeze_mm_modules freezes parameters of the list again"),
    Rule("SPC601", "selection", "warning", "a tie-break decides the cut, or another warning about the selection"),
    Rule("SPC602", "selection", "error", "no selection can be made from the scan"),
)
MOST_OF_A_KIND = 20
_BY_CODE = {rule.code: rule for rule in RULES}


@dataclass(frozen=True)
class Finding:
    """One thing that a check found: a sentence on it and a sentence on what to do.

    `file` is '' until it is known; `line` counts from 1 and is None if the finding is about no single line.
    """

    code: str
    message: str
    remedy: str
    file: str = ""
    line: int | None = None

    @property
    def rule(self) -> Rule:
        """Its row of the table."""
        return _BY_CODE[self.code]

    @property
    def severity(self) -> Severity:
        """Of its rule."""
        return self.rule.severity

    @property
    def place(self) -> str:
        """File and line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


def located(findings: Iterable[Finding], file: str) -> list[Finding]:
    """The findings; those without a file get this one."""
    return [finding if finding.file else replace(finding, file=file) for finding in findings]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Sorted by file, line and code; of one code in one file at most `MOST_OF_A_KIND`, then how many more."""
    kinds: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in sorted(findings, key=_order):
        kinds[finding.file, finding.code].append(finding)
    return sorted((each for kind in kinds.values() for each in _shortened(kind)), key=_order)


def _order(finding: Finding) -> tuple[str, int, str, str]:
    return finding.file, finding.line or 0, finding.code, finding.message


def _shortened(findings: list[Finding]) -> list[Finding]:
    kept, left = findings[:MOST_OF_A_KIND], findings[MOST_OF_A_KIND:]
    if not left:
        return kept
    message = f"{len(left):,} more of these: {left[0].rule.what}."
    return [*kept, replace(left[0], message=message)]


def counted(findings: Iterable[Finding]) -> dict[Severity, int]:
    """Number of findings of each severity."""
    severities = [finding.severity for finding in findings]
    return {severity: severities.count(severity) for severity in get_args(Severity)}


def of_error(code: str, error: Exception, *, line: int | None = None) -> Finding:
    """A finding from one of the program's own errors, whose last sentence says what to do."""
    message, _, remedy = str(error).rpartition(". ")
    return Finding(code, f"{message}." if message else remedy, remedy, line=line)


def some(names: Iterable[str], *, at_most: int = 3) -> str:
    """The first names, quoted, and how many more there are."""
    every = list(names)
    shown = ", ".join(f"'{name}'" for name in every[:at_most])
    return shown if len(every) <= at_most else f"{shown} and {len(every) - at_most} more"
