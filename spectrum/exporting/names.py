"""The selection for programs: a list of names, one regular expression, or JSON."""

import json
import re
from typing import Any

from spectrum.exporting.header import refuse_control
from spectrum.exporting.matching import confirm, expanded, expression, runtime_names
from spectrum.results.scan import Scan
from spectrum.selection import Selection


def to_names(selection: Selection, scan: Scan) -> str:
    """A parameter name per line, as `named_parameters()` has them, and nothing else.

    Raises:
        SelectionError: a name with a control character, which could pass for two.
    """
    names = expanded(selection.names, runtime_names(scan))
    for name in names:
        refuse_control(name)
    return "".join(f"{name}\n" for name in names)


def to_regex(selection: Selection, scan: Scan) -> str:
    """One anchored expression for Python's re: `search`, `match` and `fullmatch` find exactly the selection.

    Raises:
        SelectionError: it does not match exactly the selection, or a name has a control character.
    """
    for name in selection.names:
        refuse_control(name)
    text = f"^(?:{expression(selection.names)})$"
    compiled, members = re.compile(text), runtime_names(scan)
    wanted = expanded(selection.names, members)
    for match in (compiled.search, compiled.fullmatch):
        confirm([name for group in members.values() for name in group if match(name)], wanted, "an expression")
    return f"{text}\n"


def to_json(selection: Selection, scan: Scan) -> str:
    """The selection as one JSON object: what was chosen from, per module type, and the names to train."""
    document: dict[str, Any] = {
        "model": {"id": scan.model.id, "revision": scan.model.revision, "parameters": scan.model.parameters},
        "noise_model": scan.settings.noise_model,
        "description": selection.description,
        "top_percent": None if selection.top_percent is None else float(selection.top_percent),
        "trainable": selection.trainable,
        "embeddings": selection.embeddings,
        "norms": selection.norms,
        "module_types": {
            group.module_type: {
                "parameters": len(group.ranked),
                "saturated": group.saturated,
                "selected": [{"name": item.name, "snr": item.snr} for item in group.selected],
            }
            for group in selection.groups
        },
        "names": selection.names,
        "warnings": selection.warnings,
    }
    return json.dumps(document, allow_nan=False, indent=1, ensure_ascii=False) + "\n"
