"""The comment that Spectrum wrote above a list: what it says was chosen."""

import re
import shlex
from dataclasses import dataclass

from spectrum.checking.findings import Finding
from spectrum.selection import Choice, TopPercent
from spectrum.selection.ranking import SCORE_NAMES
from spectrum.selection.wording import describe
from spectrum.spectra.snr import NOISE_MODELS, NoiseModel

LONGEST = 1000  # characters; a header is anybody's text
_HEADER = re.compile(r"\s*# Spectrum: (.*\S)\s*")
_NOISE_MODEL = re.compile(r".*\(noise model ([a-z-]+)\)")
_TOP = re.compile(r"top ([0-9.e+-]{1,24}) % of each module type ")

# The words of `spectrum.selection.wording`, read backwards.
_NUMBER = r"[0-9.e+-]{1,24}"
_BY = rf"(?P<score>{'|'.join(SCORE_NAMES.values())})(?: \(noise model [a-z-]+\))?"
_OF = r"of (?:each module type|(?P<layers>the layers, whole,))"
_CONTROL = re.compile(
    r"(?P<control>the lowest ranked|drawn at random \(seed (?P<seed>[0-9]+)\)|the first layers|the last layers)"
    r", in the numbers of: "
)
_STRATEGIES = {"lowest": "bottom", "at": "random", "first": "first", "last": "last"}
_AMOUNTS = [
    re.compile(rf"the (?P<count>[0-9]+) best {_OF} by {_BY}"),
    re.compile(rf"every parameter with an {_BY} of at least (?P<min_snr>{_NUMBER})"),
    re.compile(
        rf"top {_NUMBER} % {_OF} by {_BY}, the most that trains at most "
        rf"(?:(?P<max_params>[0-9,]+) weights|(?P<trainable>{_NUMBER}) % of all weights)"
    ),
    re.compile(rf"top (?P<top>{_NUMBER}) % {_OF} by {_BY}"),
    re.compile(rf"top (?P<per_type>.+) by {_BY}"),
]


@dataclass(frozen=True)
class Header:
    """What the comment above a list says.

    Attributes:
        line: of the file.
        description: of the choice, as in `spectrum.selection.Selection`.
        top_percent: where the choice is exactly that of `select --top` and nothing else; else None.
        noise_model: where it names one.
    """

    line: int
    description: str
    top_percent: float | None
    noise_model: NoiseModel | None


def read_header(text: str, *, above: int) -> Header | None:
    """The last header that stands before a line; None where there is none."""
    lines = text.splitlines()[: above - 1]
    found = [(number, match[1]) for number, line in enumerate(lines, 1) if (match := _HEADER.fullmatch(line))]
    if not found:
        return None
    line, description = found[-1]
    named = _NOISE_MODEL.match(description[:LONGEST])
    noise_model = next((name for name in NOISE_MODELS if named and named[1] == name), None)
    return Header(line, description, _plain_percent(description, noise_model), noise_model)


def unclear(header: Header) -> Finding:
    """That a list was not compared, for its header tells of a choice that only options repeat."""
    words = choosing_options(header.description)
    said = header.description[:200]
    message = f"The list was not compared, for it was chosen otherwise than by --top alone, says its header: '{said}'."
    remedy = "Give check the options that chose it" + (f": {words}." if words else ".")
    return Finding("SPC418", message, remedy, line=header.line)


def choosing_options(description: str) -> str | None:
    """The options of `select` behind a description; None where it is none."""
    control = _CONTROL.match(description)
    amount = description[control.end() if control else 0 :]
    found = next((match for each in _AMOUNTS if (match := each.fullmatch(amount[:LONGEST]))), None)
    if found is None:
        return None
    given = found.groupdict()
    words = ["--whole-layers"] if given.get("layers") else []
    words += [f"--{name.replace('_', '-')} {given[name]}" for name in ("count", "min_snr", "top") if given.get(name)]
    if given.get("max_params"):
        words.append(f"--max-params {given['max_params'].replace(',', '')}")
    if given.get("trainable"):
        words.append(f"--trainable {given['trainable']}%")
    if given.get("per_type"):
        words += _per_type(given["per_type"])
    score = next(name for name, said in SCORE_NAMES.items() if said == given["score"])
    words += [f"--score {score}"] if score != "snr" else []
    if control:
        words.append(f"--strategy {_STRATEGIES[control['control'].split()[1]]}")
        words += [f"--seed {control['seed']}"] if control["seed"] else []
    return " ".join(words)


def _per_type(text: str) -> list[str]:
    shares = [part.partition(" % of ") for part in text.split(", ")]
    others = [share for share, _, pattern in shares if pattern == "the others"]
    rules = ",".join(f"{pattern}={share}" for share, _, pattern in shares if pattern != "the others")
    return [f"--per-type {shlex.quote(rules)}", *(f"--top {share}" for share in others)]


def _plain_percent(description: str, noise_model: NoiseModel | None) -> float | None:
    """The percentage of a description that is no other than the plain one's."""
    found = _TOP.match(description)
    try:
        percent = float(found[1]) if found else 0.0
    except ValueError:
        return None
    if noise_model is None or not 0 < percent <= 100:
        return None
    return percent if describe(Choice(TopPercent(percent)), noise_model) == description else None
