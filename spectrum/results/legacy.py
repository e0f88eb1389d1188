"""Import of the authors' result files, in every shape they were published in.

plain: {layer: {"snr": number, "type": text}}, Infinity included; sorted: {type: {layer: number}}.
"""

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from spectrum.errors import ScanFileError, one_line
from spectrum.naming.identity import EXPERT, kind_by_name
from spectrum.naming.parameters import layer, module_type, natural_key
from spectrum.results.download import download
from spectrum.results.reader import load_json, parse_scores
from spectrum.results.scan import MatrixScore, Model, ParameterScore, Scan, Settings
from spectrum.results.writer import FORMAT
from spectrum.untrusted import is_name, shown


def import_scan(source: str | Path, *, model_id: str | None = None) -> Scan:
    """A scan from an older result file, whose name or address is recorded as its origin.

    The experts of one layer and projection become one parameter, its score the median over them; every number of
    the file is kept. Infinity becomes `saturated`; NaN, which the authors' program wrote for a matrix it could not
    read, is listed as skipped.

    Args:
        source: path or http(s) address of the older file.
        model_id: 'owner/name'; by default it follows the file's name.

    Raises:
        ScanFileError: the file is empty or has none of the known shapes.
        SpectrumError: the address cannot be read.
    """
    place = str(source)
    remote = place.startswith(("https://", "http://"))
    if remote:
        value = parse_scores(download(place), source=place)
    else:
        value = load_json(Path(place), wanted="a result file of the authors' program, or its address on the web")
    file_name = unquote(urlsplit(place).path).rpartition("/")[2] if remote else Path(place).name
    if isinstance(value, dict) and value.get("format") == FORMAT:
        raise ScanFileError(f"'{place}' is a scan file of this program already; use it as it is.")
    numbers = _numbers(value, place)
    skipped = {name: "NaN in the older file" for name, number in numbers.items() if math.isnan(number)}
    groups: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for name in sorted(numbers.keys() - skipped.keys(), key=natural_key):
        expert = EXPERT.search(name)
        groups[EXPERT.sub("*", name, count=1)].append((expert.group(1) if expert else "", numbers[name]))
    return Scan(
        model=Model(id=_text(model_id or Path(file_name).stem.removeprefix("snr_results_").removesuffix("_sorted"))),
        settings=Settings(origin=_text(place if remote else file_name)),
        parameters=tuple(_parameter(f"{name}.weight", group) for name, group in groups.items()),
        unscored=(),
        skipped=skipped,
    )


def _numbers(value: Any, source: str) -> dict[str, float]:
    """Layer name -> score, from either shape."""
    if not isinstance(value, Mapping) or not value:
        raise ScanFileError(f"'{source}' holds no scores. Get the file again, or scan the model.")
    plain = all(isinstance(entry, Mapping) and "snr" in entry for entry in value.values())
    numbers = (
        {name: entry["snr"] for name, entry in value.items()}
        if plain
        else {name: number for group in value.values() for name, number in _group(group, source).items()}
    )
    for name, number in numbers.items():
        if not is_name(name) or not _is_score(number):
            raise ScanFileError(
                f"'{source}': the score of {shown(name)} is {shown(number)}, expected a number, 0 or more. "
                "It is not a result file of the authors' program."
            )
    if all(math.isnan(number) for number in numbers.values()):
        raise ScanFileError(f"'{source}' holds no usable scores. Scan the model instead.")
    return {name: float(number) for name, number in numbers.items()}


def _text(name: str) -> str:
    """A file name as text to show and store: what is not UTF-8 or moves the cursor becomes a question mark."""
    return one_line(name.encode(errors="replace").decode())


def _group(group: Any, source: str) -> Mapping[str, Any]:
    if not isinstance(group, Mapping):
        raise ScanFileError(f"'{source}' has none of the shapes of a result file. Scan the model instead.")
    return group


def _is_score(number: Any) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return not number < 0 and (isinstance(number, float) or number <= sys.float_info.max)


def _parameter(name: str, group: list[tuple[str, float]]) -> ParameterScore:
    median = statistics.median(number for _, number in group)
    stacked = "*" in name
    return ParameterScore(
        name=name,
        module_type=module_type(name),
        layer=layer(name),
        kind="experts" if stacked else kind_by_name(name),
        shape=None,
        dtype=None,
        snr=_or_none(median),
        saturated=math.isinf(median),
        score=None,
        matrices=tuple(MatrixScore(label, None, _or_none(number), math.isinf(number), None) for label, number in group)
        if stacked
        else (),
    )


def _or_none(number: float) -> float | None:
    return None if math.isinf(number) else number
