"""Scan files read back: every field is checked, and an error names the one that is wrong."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_args

from spectrum.checkpoint.fingerprint import Fingerprint
from spectrum.errors import ScanFileError
from spectrum.naming.parameters import Kind, natural_key
from spectrum.results.scan import (
    MatrixScore,
    Model,
    NameMapping,
    Names,
    ParameterScore,
    Precision,
    Scan,
    Settings,
    Unscored,
)
from spectrum.results.writer import FORMAT, VERSION
from spectrum.spectra.snr import NOISE_MODELS, Score
from spectrum.untrusted import TwiceError, is_name, parse_json, read_file, shown

T = TypeVar("T")
MAX_BYTES = 256 * 2**20  # a scan of 44,000 experts one by one has 20 MB
LARGEST_COUNT = 2**63 - 1  # as torch; Python refuses to write numbers of thousands of digits
_KINDS = get_args(Kind)
_PRECISIONS = get_args(Precision)
_NAMES = get_args(Names)
_MAPPINGS = get_args(NameMapping)


def read_scan(path: Path) -> Scan:
    """Read and validate a scan file.

    Raises:
        ScanFileError: no such file, not JSON, not this format, or a field that is missing or wrong.
    """
    return scan_from_json(load_json(path), source=str(path))


def load_json(path: Path, *, wanted: str = "the .json file of a scan") -> Any:
    """Parsed JSON of a file, as `parse_scores` reads it; an error asks for the `wanted` file instead.

    Raises:
        ScanFileError: the file is missing, empty, or not JSON.
    """
    try:
        text = read_file(path, most=MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ScanFileError(f"'{path}' cannot be read: {reason}. Give {wanted}.") from error
    return parse_scores(text, source=str(path))


def parse_scores(text: str, *, source: str) -> Any:
    """Parsed JSON of a text; NaN and Infinity are read as floats, because older files contain them.

    Raises:
        ScanFileError: it is empty or not JSON; the error names the source.
    """
    if not text.strip():
        raise ScanFileError(f"'{source}' is empty: it holds no scores. Scan the model, or get the file again.")
    try:
        return parse_json(text)
    except TwiceError as error:
        raise ScanFileError(
            f"'{source}' lists {shown(str(error))} twice: it was altered. Scan the model again."
        ) from error
    except ValueError as error:
        if not text.lstrip().startswith(("{", "[")):
            raise ScanFileError(f"'{source}' is not JSON. Give the .json file of a scan.") from error
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ScanFileError(
            f"'{source}' is not valid JSON{where}: it was cut off or altered. Scan the model again."
        ) from error


def scan_from_json(value: Any, *, source: str) -> Scan:
    """A scan from the JSON object of a scan file.

    Args:
        value: parsed JSON.
        source: what errors call the file.

    Raises:
        ScanFileError: naming the first field that is missing or wrong.
    """
    root = _Field(source, "", value)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ScanFileError(
            f"'{source}' is not a scan file: it lacks '\"format\": \"{FORMAT}\"'. "
            "An older result file is converted by 'spectrum import'."
        )
    if value.get("version") != VERSION:
        raise ScanFileError(
            f"'{source}' has version {value.get('version')!r} of the scan format, this program reads {VERSION}. "
            "Update spectrum-snr, or scan the model again."
        )
    return Scan(
        model=_model(root.get("model")),
        settings=_settings(root.get("scan")),
        parameters=tuple(_parameter(name, field) for name, field in root.get("parameters").natural_items()),
        unscored=tuple(_unscored(name, field) for name, field in root.get("unscored").natural_items()),
        skipped={name: field.text() for name, field in root.get("skipped").items()},
    )


class _Field:
    """A value inside the file together with its path, so that an error can name it."""

    def __init__(self, source: str, path: str, value: Any) -> None:
        self.source, self.path, self.value = source, path, value

    def fail(self, expected: str) -> NoReturn:
        raise ScanFileError(
            f"'{self.source}': {self.path or 'the file'} is {shown(self.value)}, expected {expected}. "
            "The file was altered; scan the model again."
        )

    def get(self, key: str) -> "_Field":
        members = self._object()
        if key not in members:
            raise ScanFileError(
                f"'{self.source}': {self.path or 'the file'} lacks the field '{key}'. "
                "The file was altered; scan the model again."
            )
        return _Field(self.source, f"{self.path}.{key}" if self.path else key, members[key])

    def items(self) -> "list[tuple[str, _Field]]":
        members = [
            (name, _Field(self.source, f"{self.path}[{shown(name)}]", value)) for name, value in self._object().items()
        ]
        for name, field in members:
            if not is_name(name):
                field.fail("under a name without control characters")
        return members

    def natural_items(self) -> "list[tuple[str, _Field]]":
        return sorted(self.items(), key=lambda item: natural_key(item[0]))

    def has(self, key: str) -> bool:
        return key in self._object()

    def optional(self, parse: "Callable[[_Field], T]") -> T | None:
        return None if self.value is None else parse(self)

    def text(self) -> str:
        # Half of a surrogate pair can neither be shown nor written as UTF-8.
        return str(self.value) if is_name(self.value) else self.fail("a string without control characters")

    def one_of(self, known: tuple[Any, ...]) -> Any:
        # Not by `in` alone: 1 == True, and a list has no place in a set.
        return (
            self.value
            if isinstance(self.value, str) and self.value in known
            else self.fail(f"one of {', '.join(map(repr, known))}")
        )

    def flag(self) -> bool:
        return self.value if isinstance(self.value, bool) else self.fail("true or false")

    def count(self) -> int:
        whole = type(self.value) is int and 0 <= self.value <= LARGEST_COUNT
        return cast("int", self.value) if whole else self.fail(f"a whole number, 0 to {LARGEST_COUNT}")

    def number(self) -> float:
        # NaN and Infinity are not JSON, but Python's parser accepts them.
        sound = type(self.value) in (int, float) and 0 <= self.value <= sys.float_info.max
        return cast("float", self.value) if sound else self.fail("a finite number, 0 or more")

    def list_of(self, parse: "Callable[[_Field], T]") -> tuple[T, ...]:
        if not isinstance(self.value, list):
            self.fail("a list")
        return tuple(parse(_Field(self.source, f"{self.path}[{i}]", v)) for i, v in enumerate(self.value))

    def _object(self) -> Mapping[str, Any]:
        return self.value if isinstance(self.value, dict) else self.fail("an object")


def _model(field: _Field) -> Model:
    return Model(
        id=field.get("id").text(),
        revision=field.get("revision").optional(_Field.text),
        fingerprint=field.get("fingerprint").optional(
            lambda value: Fingerprint(value.get("headers").text(), value.get("content").text())
        ),
        model_class=field.get("class").optional(_Field.text),
        transformers=field.get("transformers").optional(_Field.text),
        name_mapping=field.get("name_mapping").one_of(_MAPPINGS),
        parameters=field.get("parameters").optional(_Field.count),
        auto_classes={name: each.text() for name, each in field.get("auto_classes").items()}
        if field.has("auto_classes")
        else {},
    )


def _settings(field: _Field) -> Settings:
    """Whatever a file of an older release does not say has its default."""
    readers: dict[str, Callable[[_Field], Any]] = {
        "noise_model": lambda value: value.one_of(NOISE_MODELS),
        "tool": lambda value: value.optional(_Field.text),
        "torch": lambda value: value.optional(_Field.text),
        "device": lambda value: value.optional(_Field.text),
        "precision": lambda value: value.one_of(_PRECISIONS),
        "modules": lambda value: value.list_of(_Field.text),
        "exclude": lambda value: value.list_of(_Field.text),
        "all_modules": _Field.flag,
        "names": lambda value: value.one_of(_NAMES),
        "model_class": lambda value: value.optional(_Field.text),
        "experts": lambda value: value.optional(_Field.count),
        "origin": lambda value: value.optional(_Field.text),
        "complete": _Field.flag,
        "algorithm": _Field.count,
    }
    return Settings(**{name: read(field.get(name)) for name, read in readers.items() if field.has(name)})


def _parameter(name: str, field: _Field) -> ParameterScore:
    snr, saturated, score = _score(field)
    return ParameterScore(
        name=name,
        module_type=field.get("module_type").text(),
        layer=field.get("layer").optional(_Field.count),
        kind=field.get("kind").one_of(_KINDS),
        shape=field.get("shape").optional(_shape),
        dtype=field.get("dtype").optional(_Field.text),
        snr=snr,
        saturated=saturated,
        score=score,
        tensors=field.get("tensors").list_of(_Field.text),
        matrices=tuple(_matrix(label, entry) for label, entry in field.get("matrices").natural_items())
        if field.has("matrices")
        else (),
        redone=_redone(field),
    )


def _matrix(label: str, field: _Field) -> MatrixScore:
    snr, saturated, score = _score(field)
    return MatrixScore(label, field.get("shape").optional(_matrix_shape), snr, saturated, score, _redone(field))


def _redone(field: _Field) -> str | None:
    return field.get("redone").text() if field.has("redone") else None


def _score(field: _Field) -> tuple[float | None, bool, Score | None]:
    snr, saturated = field.get("snr").optional(_Field.number), field.get("saturated").flag()
    if saturated != (snr is None):
        field.get("snr").fail("null if saturated is true, else a number")
    if not field.has("sigma_max"):
        return snr, saturated, None
    score = Score(
        snr=snr,
        saturated=saturated,
        ratio=field.get("ratio").optional(_Field.number),
        sigma_max=field.get("sigma_max").number(),
        threshold=field.get("threshold").number(),
        signal_count=field.get("signal_count").number(),
        nuclear=field.get("nuclear").number(),
        stable_rank=field.get("stable_rank").number(),
    )
    return snr, saturated, score


def _unscored(name: str, field: _Field) -> Unscored:
    return Unscored(name, field.get("kind").one_of(_KINDS), field.get("shape").optional(_shape))


def _shape(field: _Field) -> tuple[int, ...]:
    return field.list_of(_Field.count)


def _matrix_shape(field: _Field) -> tuple[int, int]:
    shape = _shape(field)
    return (shape[0], shape[1]) if len(shape) == 2 else field.fail("two numbers, rows and columns")
