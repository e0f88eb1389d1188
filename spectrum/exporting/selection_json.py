"""The selection as JSON, for programs."""

import json
from typing import Any

from spectrum.results.scan import Scan
from spectrum.selection import Selection


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
