"""Were the scan's names made by the class and the transformers that will train?"""

from collections.abc import Iterator

from spectrum.checking.findings import Finding, some
from spectrum.results.scan import Scan


def check_names(scan: Scan, *, transformers: str | None) -> Iterator[Finding]:
    """Compare where the names come from with what will train.

    Args:
        scan: whose names.
        transformers: the trainer's version; None if it is not known.
    """
    model = scan.model
    if model.name_mapping != "exact":
        how = {"identity": "are those of the checkpoint", "table": "come from a conversion table alone"}
        message = f"The names {how[model.name_mapping]}; no model was built to confirm them."
        yield Finding("SPC301", message, "Scan with a transformers that can build the model from its config.json.")
    if transformers is None:
        message = "The trainer's version of transformers is not known, so the names cannot be compared with it."
        yield Finding("SPC305", message, "Pass --transformers VERSION, or install it here.")
        return
    if model.transformers and model.transformers != transformers:
        yield _other_version(model.transformers, transformers)
    stacked = [item.name for item in scan.parameters if "*" in item.name]
    if stacked and _is_from_transformers_4(scan) and _major(transformers) != "4":
        message = f"Names of single experts, such as {some(stacked, at_most=1)}, are those of transformers 4. In "
        message += f"transformers {transformers} the experts of a layer are one parameter, so they match nothing."
        yield Finding("SPC304", message, "Scan the model again with the transformers that trains it.")


def _is_from_transformers_4(scan: Scan) -> bool:
    """Imported files are; a model with remote code keeps single experts under every version."""
    version = scan.model.transformers
    return scan.settings.origin is not None or (version is not None and _major(version) == "4")


def _other_version(made: str, trains: str) -> Finding:
    code = "SPC302" if _major(made) != _major(trains) else "SPC303"
    message = f"The names were made by transformers {made}, the trainer has {trains}."
    return Finding(code, message, f"Scan again beside transformers {trains}, or check with --model there.")


def _major(version: str) -> str:
    return version.partition(".")[0]
