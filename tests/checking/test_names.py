"""Names of single experts: wrong only if transformers 4 or an older program made them."""

import pytest

from spectrum.checking.against_model import check_names
from spectrum.results import Model, ParameterScore, Scan, Settings

NAME = "model.layers.0.mlp.experts.*.w1.weight"


@pytest.mark.parametrize(
    ("model", "origin", "trains", "found"),
    [
        (Model("m", transformers="4.57.6", name_mapping="exact"), None, "5.16.1", True),
        (Model("m", transformers="4.57.6", name_mapping="exact"), None, "4.57.6", False),
        (Model("m"), "old.json", "5.16.1", True),
        (Model("m"), None, "5.16.1", False),  # remote code: named as in the checkpoint
        (Model("m", transformers="5.16.1", name_mapping="exact"), None, "5.16.1", False),
        (Model("m", transformers="5.16.1", name_mapping="table"), None, "5.17.0", False),
    ],
)
def test_experts_of_remote_code_are_no_mistake(model, origin, trains, found):
    """A class of its own keeps one module per expert under every version."""
    about = ("model.layers.*.mlp.experts.*.w1", 0, "experts", (8, 4, 4), "F32")
    scan = Scan(model, Settings(origin=origin), (ParameterScore(NAME, *about, 1.0, False, None),), (), {})
    codes = [item.code for item in check_names(scan, transformers=trains)]
    assert ("SPC304" in codes) is found
