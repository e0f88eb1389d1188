"""A report as text for people, JSON, GitHub's workflow commands, or JUnit's XML."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from spectrum.checking.findings import RULES, Area, Finding, Rule, counted
from spectrum.errors import one_line

ReportFormat = Literal["text", "json", "github", "junit"]

# Source: GitHub's actions/toolkit, packages/core/src/command.ts: what its escapeData and escapeProperty replace.
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}
_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
# The characters that XML 1.0 allows, section 2.2; ElementTree does not replace the others.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Report:
    """What a check of a scan file found in the areas that it looked at.

    If `strict` is set, warnings fail the check too.
    """

    scan: str
    findings: Sequence[Finding]
    areas: Collection[Area]
    strict: bool = False

    def fails(self, finding: Finding) -> bool:
        """Whether the check fails because of this finding."""
        return finding.severity == "error" or (self.strict and finding.severity == "warning")

    @property
    def failed(self) -> bool:
        """Whether the check fails."""
        return any(self.fails(finding) for finding in self.findings)


def to_text(report: Report) -> str:
    """One line per finding, its remedy under it, and a line that counts them."""
    lines = []
    for item in report.findings:
        lines += [one_line(f"{item.place}: {item.severity} {item.code}: {item.message}")]
        lines += [f"    {one_line(item.remedy)}"]
    counts = ", ".join(
        f"{number} {severity}{'' if number == 1 else 's'}" for severity, number in counted(report.findings).items()
    )
    looked_at = ", ".join(area for area in dict.fromkeys(rule.area for rule in RULES) if area in report.areas)
    return "\n".join([*lines, f"{counts}; looked at: {looked_at}"]) + "\n"


def to_json(report: Report) -> str:
    """One JSON object with sorted keys."""
    findings = [asdict(item) | {"severity": item.severity, "area": item.rule.area} for item in report.findings]
    document = {
        "format": "spectrum-check",
        "version": 1,
        "scan": report.scan,
        "areas": sorted(report.areas),
        "strict": report.strict,
        "failed": report.failed,
        "counts": counted(report.findings),
        "findings": findings,
    }
    return json.dumps(document, allow_nan=False, sort_keys=True, indent=1, ensure_ascii=True) + "\n"


def to_github(report: Report) -> str:
    """A workflow command per finding, which GitHub shows at the line in the file."""
    return "".join(_command(item, fails=report.fails(item)) + "\n" for item in report.findings)


def to_junit(report: Report) -> str:
    """A test case per rule: failed if one of its findings fails the check, skipped if its area was not looked at."""
    failed = {item.code for item in report.findings if report.fails(item)}
    skipped = [rule for rule in RULES if rule.area not in report.areas and rule.code not in failed]
    counts = {"tests": len(RULES), "failures": len(failed), "errors": 0, "skipped": len(skipped)}
    suite = ET.Element("testsuite", {"name": "spectrum check"} | {key: str(count) for key, count in counts.items()})
    suite.extend(_case(rule, report) for rule in RULES)
    ET.indent(suite, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suite, encoding="unicode")}\n'


FORMATS = {"text": to_text, "json": to_json, "github": to_github, "junit": to_junit}


def _command(item: Finding, *, fails: bool) -> str:
    place = {"file": item.file, "line": item.line, "title": f"{item.code} {item.rule.what}"}
    properties = ",".join(
        f"{key}={_escaped(str(value), _PROPERTY)}" for key, value in place.items() if value is not None
    )
    name = "error" if fails else _COMMANDS[item.severity]
    return f"::{name} {properties}::{_escaped(f'{item.message} {item.remedy}', _DATA)}"


def _escaped(text: str, table: dict[str, str]) -> str:
    printable = "".join(each if each.isprintable() or each in table else "?" for each in text)
    return "".join(table.get(each, each) for each in printable)


def _case(rule: Rule, report: Report) -> ET.Element:
    case = ET.Element("testcase", classname=f"spectrum.checking.{rule.area}", name=f"{rule.code} {rule.what}")
    found = [item for item in report.findings if item.code == rule.code]
    if any(report.fails(item) for item in found):
        failure = ET.SubElement(case, "failure", type=rule.severity, message=_xml(found[0].message))
        failure.text = _listed(found)
    elif found:
        ET.SubElement(case, "system-out").text = _listed(found)
    elif rule.area not in report.areas:
        ET.SubElement(case, "skipped", message="not looked at")
    return case


def _listed(found: Sequence[Finding]) -> str:
    return _xml("\n".join(f"{item.place}: {item.message} {item.remedy}" for item in found))


def _xml(text: str) -> str:
    return _NO_XML.sub("?", text)
