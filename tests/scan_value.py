"""A scan of every kind of entry."""

import pytest

from spectrum.checkpoint import Fingerprint
from spectrum.results import MatrixScore, Model, ParameterScore, Scan, Settings, Unscored
from spectrum.spectra.snr import Score


@pytest.fixture
def scan() -> Scan:
    score = Score(1.5, False, 3.0, 2.0, 0.5, 7, 9.25, 4.0)
    saturated = Score(None, True, None, 2.0, 0.0, 8, 9.25, 4.0)
    up = "model.layers.{}.mlp.up_proj.weight"
    plain = ParameterScore(
        up.format(2), "model.layers.*.mlp.up_proj", 2, "matrix", (8, 32), "BF16", 1.5, False, score, (up.format(2),)
    )
    flat = ParameterScore(
        up.format(10),
        "model.layers.*.mlp.up_proj",
        10,
        "matrix",
        (8, 32),
        "BF16",
        None,
        True,
        saturated,
        (up.format(10),),
    )
    experts = ParameterScore(
        name="model.layers.2.experts.down",
        module_type="model.layers.*.experts.down",
        layer=2,
        kind="experts",
        shape=(2, 8, 8),
        dtype="F32",
        snr=1.5,
        saturated=False,
        score=score,
        tensors=("model.layers.2.experts.down",),
        matrices=(MatrixScore("0", (8, 8), 1.5, False, score), MatrixScore("1", (8, 8), 1.5, False, score)),
    )
    return Scan(
        model=Model("owner/name", "a" * 40, Fingerprint("h", "samples:c"), None, None, "identity", 1234),
        settings=Settings(tool="0.1.0", torch="2.13.0", device="cpu"),
        parameters=(experts, plain, flat),
        unscored=(Unscored("lm_head.weight", "head", (5, 8)), Unscored("model.norm.weight", "norm", (8,))),
        skipped={"model.norm.weight": "vector"},
    )
