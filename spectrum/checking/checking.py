"""The whole check: the scan file, the model, the names, and the trainer's config."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from spectrum.checking.against_model import check_model, check_names
from spectrum.checking.config import ListedConfig, read_listed_config
from spectrum.checking.findings import Area, Finding, located, of_error, ordered
from spectrum.checking.formats import Report
from spectrum.checking.lines import Line, check_lines
from spectrum.checking.scan_file import check_spectra, read_scan_file
from spectrum.errors import SelectionError, SpectrumError
from spectrum.exporting.axolotl_conflicts import find_conflicts
from spectrum.results import Scan, spectra_file
from spectrum.scanning.union import rescored
from spectrum.selection import Choice, Selection, read_conditions, select
from spectrum.spectra.snr import NoiseModel


@dataclass(frozen=True)
class Trainer:
    """What the config should train, and with what.

    Attributes:
        choice: of the selection; None takes the one in the config's header, else the top 25 %.
        noise_model: of the scores; None takes the one in the header, else the scan's.
        transformers: the trainer's version; None takes the one installed here.
    """

    choice: Choice | None = None
    noise_model: NoiseModel | None = None
    transformers: str | None = None


def check(
    scan: str | Path,
    *,
    config: str | Path | None = None,
    model: str | Path | None = None,
    revision: str | None = None,
    token: str | None = None,
    trainer: Trainer | None = None,
) -> list[Finding]:
    """Check that a scan is sound, still belongs to its model, and that a config trains exactly its selection.

    Args:
        scan: a scan file.
        config: of Axolotl, or a list that `select` wrote.
        model: what the scan should be of: 'owner/name[@revision]', a folder or a file.
        revision: branch, tag or commit of a model on the Hub.
        token: for private and gated models; by default the stored login.
        trainer: what the config should train, and with which transformers.

    Returns:
        What is wrong, or worth knowing, by file and line.
    """
    return list(report(scan, config=config, model=model, revision=revision, token=token, trainer=trainer).findings)


def report(
    scan: str | Path,
    *,
    config: str | Path | None = None,
    model: str | Path | None = None,
    revision: str | None = None,
    token: str | None = None,
    trainer: Trainer | None = None,
    notify: Callable[[str], None] = lambda _message: None,
) -> Report:
    """Like `check`, with the areas that were looked at; `notify` is called before each wait."""
    path, trainer = Path(scan), trainer or Trainer()
    stored, findings = read_scan_file(path)
    areas: set[Area] = {"scan"}
    listed = None
    if config is not None:
        listed, more = read_listed_config(Path(config))
        findings += more
        areas.add("config")
    if stored is not None:
        installed = _installed_transformers()
        wanted = trainer.transformers or installed
        findings += check_spectra(stored, spectra_file(path))
        findings += check_names(stored, transformers=wanted)
        scored, selection, more = _select(stored, path, trainer, listed)
        findings += more
        findings += check_config(listed, scored, selection) if listed is not None else []
        looked: dict[Area, object] = {"names": stored, "trainer": config, "selection": selection, "model": model}
        areas |= {area for area, subject in looked.items() if subject is not None}
        if model is not None:
            findings += check_model(
                stored, str(model), revision=revision, token=token, scan_file=path, notify=notify,
                transformers=installed if wanted == installed else None,
            )  # fmt: skip
    return Report(str(scan), ordered(located(findings, str(scan))), frozenset(areas))


def _select(
    scan: Scan, path: Path, trainer: Trainer, listed: ListedConfig | None
) -> tuple[Scan, Selection | None, list[Finding]]:
    """The scan under its noise model, the selection that the config should train, if it can be made, and warnings."""
    header = listed.header if listed else None
    choice = trainer.choice or (header.choice if header else Choice())
    if choice is None:
        assert listed is not None
        assert header is not None
        message = f"The list was not compared with the scan, because its header {header.reason}."
        remedy = "Give check the options of 'spectrum select' that made the list."
        return scan, None, [Finding("SPC418", message, remedy, listed.path, header.line)]
    noise_model = trainer.noise_model or (header.noise_model if header else None)
    try:
        scan = rescored(scan, path, noise_model)
        selection = select(scan, choice, conditions=read_conditions(scan, choice, spectra_file(path)))
    except SpectrumError as error:
        return scan, None, [of_error("SPC602", error)]
    remedy = "Choose with other options, or accept it: the same scan gives the same choice."
    return scan, selection, [Finding("SPC601", warning, remedy) for warning in selection.warnings]


def check_config(listed: ListedConfig, scan: Scan, selection: Selection | None) -> list[Finding]:
    """Compare a config with a scan and the selection that it should train."""
    try:
        return located(_findings(listed, scan, selection), listed.path)
    except SelectionError as error:  # the scan has more names than any model
        return [of_error("SPC105", error)]


def _findings(listed: ListedConfig, scan: Scan, selection: Selection | None) -> Iterator[Finding]:
    lines: Sequence[Line] = ()
    if listed.patterns is not None:
        findings, lines = check_lines(listed.patterns, scan, selection)
        for finding in findings:
            # A finding about no single line is shown where the list begins.
            yield replace(finding, line=finding.line or listed.config.line(["unfrozen_parameters"]))
    rows = any(line.pattern.rows is not None for line in lines)
    names = [name for line in lines for name in line.matched]
    for conflict in find_conflicts(listed.config.data, model=scan.model, rows=rows, names=names):
        yield Finding(conflict.code, conflict.message, conflict.remedy, line=listed.config.line(conflict.keys))


def _installed_transformers() -> str | None:
    """Its version, from the package's metadata: importing it takes a second."""
    try:
        return metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return None
