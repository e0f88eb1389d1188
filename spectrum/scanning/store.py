"""The store: what the files of earlier scans know about a planned one, and how new results join them.

A spectrum is known by the fingerprint of the weights, its matrix, the precision and the version of the algorithm. As
long as these are the same it is kept, and a scan adds only what is missing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from spectrum.checkpoint import Checkpoint, Fingerprint, written_since
from spectrum.errors import ScanFileError
from spectrum.naming import Parameter
from spectrum.results import (
    ParameterScore,
    Scan,
    Spectra,
    Unscored,
    file_stem,
    is_spectrum,
    matrix_key,
    read_all_spectra,
    read_fingerprint,
    read_scan,
    spectra_file,
    write_scan,
    write_spectra,
)
from spectrum.scanning.plan import Plan
from spectrum.scanning.union import labels_of


@dataclass(frozen=True)
class Place:
    """Where the files of one scan are."""

    stem: Path

    @property
    def scan_file(self) -> Path:
        """The scores."""
        return self.stem.with_name(f"{self.stem.name}.json")

    @property
    def spectra_file(self) -> Path:
        """All singular values."""
        return spectra_file(self.scan_file)

    @property
    def partial_file(self) -> Path:
        """The spectra that are finished while a scan runs."""
        return self.stem.with_name(f"{self.stem.name}.partial.jsonl")

    @property
    def lock_file(self) -> Path:
        """Held while a scan runs."""
        return self.stem.with_name(f".{self.stem.name}.lock")


@dataclass(frozen=True)
class Stored:
    """What the store knows about a planned scan.

    Attributes:
        place: of the files; a new scan is written there, too.
        scan: stored under the same names; None if there is none, or it does not hold any more.
        spectra: those that still hold, whether or not the plan asks for them; not read if the scan is enough.
        problem: why a stored file is not used, for a person; None if all are.
        outdated: the scan, if files of the checkpoint were written after it.
    """

    place: Place
    scan: Scan | None
    spectra: Spectra
    problem: str | None = None
    outdated: Scan | None = None

    def serves(self, plan: Plan) -> bool:
        """Whether the stored scan has everything planned, and spectra if another noise model is asked for."""
        if self.scan is None or not covers(self.scan, plan):
            return False
        same_model = self.scan.settings.noise_model == plan.settings.noise_model
        return same_model or planned_shapes(plan).keys() <= self.spectra.values.keys()


def named_place(folder: Path, plan: Plan) -> Place:
    """Where a scan of this name is stored if no other weights of that name are; its lock covers both."""
    precision = plan.settings.precision
    return Place(folder / (file_stem(plan.model.id) + ("" if precision == "auto" else f".{precision}")))


def read_store(checkpoint: Checkpoint, plan: Plan, folder: Path, *, rescan: bool = False) -> Stored:
    """Read what the store knows about a plan; why a file is not used is the `problem`.

    Args:
        checkpoint: that the plan was made from.
        plan: what is asked for.
        folder: of the store.
        rescan: whether everything planned is decomposed again, and the other spectra are needed to write them back.
    """
    from spectrum.spectra.solver import ALGORITHM  # noqa: PLC0415  it imports torch

    place, scan, problem = _find(folder, plan)
    nothing = Spectra(algorithm=ALGORITHM, precision=plan.settings.precision)
    times = [path.stat().st_mtime_ns for path in (place.scan_file, place.spectra_file) if path.exists()]
    if not times:
        return Stored(place, None, nothing)
    if written_since(checkpoint, min(times)):
        return Stored(place, None, nothing, "files of the checkpoint were written after it", outdated=scan)
    if scan is not None:
        problem = _stale(scan, plan, ALGORITHM)
    stored = Stored(place, None if problem else scan, nothing, problem)
    if stored.serves(plan) and not rescan:
        return stored  # without reading gigabytes of singular values that are not needed
    try:
        spectra = read_all_spectra(place.spectra_file, fingerprint=plan.model.fingerprint)
    except ScanFileError as error:
        return replace(stored, problem=problem or f"its spectra cannot be used ({error})")
    same = (spectra.algorithm, spectra.precision) == (ALGORITHM, plan.settings.precision)
    return replace(stored, spectra=_fitting(spectra, plan)) if same else stored


def set_aside(stored: Stored, plan: Plan) -> Path | None:
    """Move outdated files to the first free one of `<name>.old.*`, `<name>.old1.*` ...; returns the scan's new place.

    Nothing is moved if everything in them is decomposed again.

    The fingerprint may have missed a small edit of the weights, so old and new scores must not mix. But copying or
    touching a file also makes it newer, and then the old ones still hold.
    """
    if stored.outdated is None or covers(plan, stored.outdated):
        return None
    stem = stored.place.stem
    places = (Place(stem.with_name(f"{stem.name}.old{number or ''}")) for number in count())
    old = next(place for place in places if not (place.scan_file.exists() or place.spectra_file.exists()))
    stored.place.scan_file.replace(old.scan_file)
    if stored.place.spectra_file.exists():
        stored.place.spectra_file.replace(old.spectra_file)
    return old.scan_file


def write_store(place: Place, scan: Scan, spectra: Spectra) -> None:
    """Write a scan and its spectra.

    Raises:
        SpectrumError: the folder cannot be written to.
    """
    assert scan.model.fingerprint is not None
    # The scan file last: if it is there, its spectra are.
    write_spectra(spectra, place.spectra_file, fingerprint=scan.model.fingerprint)
    write_scan(scan, place.scan_file)


def covers(one: Scan | Plan, other: Scan | Plan) -> bool:
    """Whether one has every parameter and every expert that another has."""
    known = {item.name: labels_of(item.matrices) for item in _scored(one)}
    return all(item.name in known and labels_of(item.matrices) <= known[item.name] for item in _scored(other))


def planned_shapes(plan: Plan) -> dict[str, tuple[int, int]]:
    """Matrix key -> (rows, cols) of everything planned."""
    return {matrix_key(item.name, each.label): each.shape for item in plan.scored for each in item.matrices}


def _scored(one: Scan | Plan) -> Sequence[ParameterScore | Parameter]:
    return one.scored if isinstance(one, Plan) else one.parameters


def _find(folder: Path, plan: Plan) -> tuple[Place, Scan | None, str | None]:
    """Where the planned scan is stored, the scan that is there, and why it cannot be read.

    A scan of other weights under the same name stays as it is; the files of this one then have 8 digits of the
    fingerprint in their names, where the next call finds them.
    """
    plain = named_place(folder, plan)
    fingerprint = plan.model.fingerprint
    facts = (fingerprint.headers, fingerprint.content) if fingerprint else ()
    digits = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
    own = Place(plain.stem.with_name(f"{plain.stem.name}.{digits}"))
    at_plain = _read_scan(plain)
    holder = _weights(plain, at_plain[0])
    if holder == fingerprint:
        return plain, *at_plain
    at_own = _read_scan(own)
    if holder is not None or _weights(own, at_own[0]) == fingerprint:
        return own, *at_own
    return plain, *at_plain


def _read_scan(place: Place) -> tuple[Scan | None, str | None]:
    if not place.scan_file.exists():
        return None, None
    try:
        return read_scan(place.scan_file), None
    except ScanFileError as error:
        return None, f"it cannot be used ({error})"


def _weights(place: Place, scan: Scan | None) -> Fingerprint | None:
    """Fingerprint of the scan at a place; of its spectra if it is missing or damaged."""
    return read_fingerprint(place.spectra_file) if scan is None else scan.model.fingerprint or Fingerprint("", "")


def _stale(scan: Scan, plan: Plan, algorithm: int) -> str | None:
    """Why a stored scan does not hold any more; None if it does."""
    if scan.settings.algorithm != algorithm:
        return "an older version of the algorithm computed it"
    if _identities((*scan.parameters, *scan.unscored)) != _identities((*plan.scored, *plan.unscored)):
        return "its parameters have other names, kinds or shapes"
    return None


def _identities(entries: Sequence[Parameter | ParameterScore | Unscored]) -> set[tuple[object, ...]]:
    return {(entry.name, entry.kind, entry.shape) for entry in entries}


def _fitting(spectra: Spectra, plan: Plan) -> Spectra:
    """Without the spectra that cannot be those of the planned matrices of their names."""
    shapes = planned_shapes(plan)
    unfit = {
        key
        for key, values in spectra.values.items()
        if not is_spectrum(values) or (key in shapes and len(values) != min(shapes[key]))
    }
    return spectra.without(unfit)
