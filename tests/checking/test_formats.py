"""The four formats: whole-text goldens, and each read back by what reads it."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from checking.cases import config
from checking.conftest import CONFIG, SCAN

from spectrum.checking import FORMATS, RULES, Finding, Report

REPORT = Report(
    "scan.json",
    [
        Finding("SPC415", "The list trains 1 parameter: 'x%,:\x1b\n'.", "Paste it again.", "a,b:c.yml", 3),
        Finding("SPC414", "'<x>' trains rows.", "Delete one.", "a,b:c.yml", 4),
        Finding("SPC305", "It is not known.", "Pass it.", "scan.json"),
    ],
    frozenset({"scan", "names", "config"}),
)

TEXT = """\
a,b:c.yml:3: error SPC415: The list trains 1 parameter: 'x%,:? '.
    Paste it again.
a,b:c.yml:4: warning SPC414: '<x>' trains rows.
    Delete one.
scan.json: note SPC305: It is not known.
    Pass it.
1 error, 1 warning, 1 note; looked at: scan, names, config
"""

JSON = r"""{
 "areas": [
  "config",
  "names",
  "scan"
 ],
 "counts": {
  "error": 1,
  "note": 1,
  "warning": 1
 },
 "failed": true,
 "findings": [
  {
   "area": "config",
   "code": "SPC415",
   "file": "a,b:c.yml",
   "line": 3,
   "message": "The list trains 1 parameter: 'x%,:\u001b\n'.",
   "remedy": "Paste it again.",
   "severity": "error"
  },
  {
   "area": "config",
   "code": "SPC414",
   "file": "a,b:c.yml",
   "line": 4,
   "message": "'<x>' trains rows.",
   "remedy": "Delete one.",
   "severity": "warning"
  },
  {
   "area": "names",
   "code": "SPC305",
   "file": "scan.json",
   "line": null,
   "message": "It is not known.",
   "remedy": "Pass it.",
   "severity": "note"
  }
 ],
 "format": "spectrum-check",
 "scan": "scan.json",
 "strict": false,
 "version": 1
}
"""

GITHUB = """\
::error file=a%2Cb%3Ac.yml,line=3,title=SPC415 parameters are trained that the selection does not hold::\
The list trains 1 parameter: 'x%25,:?%0A'. Paste it again.
::warning file=a%2Cb%3Ac.yml,line=4,title=SPC414 a range of rows%3A weight decay still changes the others::\
'<x>' trains rows. Delete one.
::notice file=scan.json,title=SPC305 which transformers will train is not known::It is not known. Pass it.
"""

# Of the one test case per rule, those with findings; the others are one line, or a <skipped> where not looked at.
JUNIT = {
    "SPC415": """\
 <testcase classname="spectrum.checking.config" name="SPC415 parameters are trained that the selection does not hold">
  <failure type="error" message="The list trains 1 parameter: 'x%,:?&#10;'.">\
a,b:c.yml:3: The list trains 1 parameter: 'x%,:?
'. Paste it again.</failure>
 </testcase>
""",
    "SPC414": """\
 <testcase classname="spectrum.checking.config" name="SPC414 a range of rows: weight decay still changes the others">
  <system-out>a,b:c.yml:4: '&lt;x&gt;' trains rows. Delete one.</system-out>
 </testcase>
""",
    "SPC305": """\
 <testcase classname="spectrum.checking.names" name="SPC305 which transformers will train is not known">
  <system-out>scan.json: It is not known. Pass it.</system-out>
 </testcase>
""",
}


def test_golden_text():
    """A line per finding, its remedy under it, and the count."""
    assert FORMATS["text"](REPORT) == TEXT


def test_golden_json():
    """Strict, keys sorted, ASCII."""
    assert FORMATS["json"](REPORT) == JSON


def test_golden_github():
    """Workflow commands, escaped by GitHub's two rules."""
    assert FORMATS["github"](REPORT) == GITHUB


def _golden_junit():
    skipped = [rule for rule in RULES if rule.area not in REPORT.areas]
    counts = f'tests="{len(RULES)}" failures="1" errors="0" skipped="{len(skipped)}"'
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuite name="spectrum check" {counts}>\n'
    for rule in RULES:
        start = f' <testcase classname="spectrum.checking.{rule.area}" name="{rule.code} {rule.what}"'
        end = '>\n  <skipped message="not looked at" />\n </testcase>\n' if rule in skipped else " />\n"
        text += JUNIT.get(rule.code, start + end)
    return text + "</testsuite>\n"


def test_golden_junit():
    """The whole file, and an XML parser gives the numbers back."""
    text = FORMATS["junit"](REPORT)
    assert text == _golden_junit()
    suite = ET.fromstring(text)  # noqa: S314  it was made here
    assert len(suite.findall("testcase")) == int(suite.get("tests")) == len(RULES)
    assert len(suite.findall("testcase/failure")) == int(suite.get("failures"))
    assert len(suite.findall("testcase/skipped")) == int(suite.get("skipped"))


_AWKWARD = [*map(chr, range(32)), "\x7f", "\x85", "\u2028", "\ud800", "\ufffe", "]]>", "&", '"']


@pytest.mark.parametrize("character", _AWKWARD)
def test_any_character(character):
    """Whatever a name holds, XML stays XML, a command one line, JSON JSON, and text two lines."""
    name = f"a{character}b"
    report = Report(name, [Finding("SPC407", f"'{name}'.", f"Not {name}.", name, 1)], {"config"})
    suite = ET.fromstring(FORMATS["junit"](report).encode(errors="surrogatepass"))  # noqa: S314
    assert suite.find("testcase/failure").get("message").startswith("'a")
    assert FORMATS["github"](report).count("\n") == len(FORMATS["github"](report).splitlines()) == 1
    assert json.loads(FORMATS["json"](report))["scan"] == name
    assert len(FORMATS["text"](report).splitlines()) == 3


def test_strict():
    """Warnings become failures in every format that knows them; notes do not."""
    strict = Report(REPORT.scan, REPORT.findings[1:], REPORT.areas, strict=True)
    assert (strict.failed, Report(REPORT.scan, REPORT.findings[1:], REPORT.areas).failed) == (True, False)
    assert [line[:8] for line in FORMATS["github"](strict).splitlines()] == ["::error ", "::notice"]
    assert 'failures="1"' in FORMATS["junit"](strict)
    assert json.loads(FORMATS["json"](strict))["failed"] is True


def test_formats_of_the_command(project, run):
    """Each reaches standard output; an error is exit 1 in all of them."""
    words = config("adapter: lora")
    outputs = {name: run("check", SCAN, *words, "--format", name) for name in FORMATS}
    assert {(code, err) for code, _, err in outputs.values()} == {(1, "")}
    assert outputs["text"][1].startswith(f"{CONFIG}:1: error SPC501: adapter: lora together with unfrozen_parameters")
    assert json.loads(outputs["json"][1])["scan"] == SCAN
    assert outputs["github"][1].startswith(f"::error file={CONFIG},line=1,title=SPC501 adapter%3A the list")
    assert re.search(r'<failure type="error" message="adapter: lora', outputs["junit"][1])


def test_nothing_found(project, run):
    """No command for GitHub, no failure for JUnit."""
    assert run("check", SCAN, "--format", "github") == (0, "", "")
    code, out, _ = run("check", SCAN, "--format", "junit")
    assert (code, 'failures="0"' in out) == (0, True)
    assert Path(SCAN).exists()
