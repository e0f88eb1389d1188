"""The exported YAML given to the real trainer: exactly the parameters selected are trainable afterwards."""

import random
import re

import pytest
import transformers
import yaml
from naming.architectures import ARCHITECTURES, load, save, tiny_model

from spectrum.exporting import to_axolotl
from spectrum.naming import Naming, Parameter, name_parameters
from spectrum.results import MatrixScore, Model, ParameterScore, Scan, Settings, Unscored
from spectrum.selection import select_top


def scan_of(naming: Naming) -> Scan:
    """A scan of these parameters whose scores are drawn by chance: here only the names matter."""
    chance = random.Random(0)
    scored = [item for item in naming.parameters if item.matrices and item.kind in ("matrix", "experts")]
    others = [item for item in naming.parameters if item not in scored]
    model = Model("tiny", None, None, naming.model_class, naming.transformers, naming.name_mapping, 1)
    unscored = tuple(Unscored(item.name, item.kind, item.shape) for item in others)
    return Scan(model, Settings(), tuple(score_of(item, chance.random()) for item in scored), unscored, {})


def score_of(item: Parameter, snr: float) -> ParameterScore:
    matrices = tuple(MatrixScore(m.label, m.shape, snr, False, None) for m in item.matrices if m.label)
    about = (item.name, item.module_type, item.layer, item.kind, item.shape, item.dtype)
    return ParameterScore(*about, snr, saturated=False, score=None, tensors=item.tensors, matrices=matrices)


def stands_for(name: str, runtime_name: str) -> bool:
    return re.fullmatch(re.escape(name).replace(r"\*", "[0-9]+"), runtime_name) is not None


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=str)
def case(request, tmp_path_factory):
    architecture = request.param
    if not architecture.exists:
        pytest.skip(f"transformers {transformers.__version__} has no {architecture.model_class}")
    checkpoint = save(tiny_model(architecture), tmp_path_factory.mktemp(str(architecture)))
    wanted = architecture.model_class if architecture.asked else None
    naming = name_parameters(checkpoint.tensors, checkpoint.config, model_class=wanted, same=checkpoint.same)
    return naming, load(checkpoint, architecture.model_class)


@pytest.mark.parametrize("choice", [(34, "train", "freeze"), (60, "freeze", "train"), (100, "freeze", "freeze")])
def test_exactly_the_selection_is_trainable(freeze_layers_except, case, choice):
    """The YAML, read by a YAML parser, with and without embeddings, norms and biases."""
    naming, model = case
    top, embeddings, norms = choice
    scan = scan_of(naming)
    selection = select_top(scan, top, embeddings=embeddings, norms=norms)
    patterns = yaml.safe_load(to_axolotl(selection, scan))["unfrozen_parameters"]
    if any(parameter.ndim == 0 for parameter in model.parameters()):
        with pytest.raises(TypeError, match="len"):  # Axolotl cannot freeze a model with a scalar parameter (CLIP's)
            freeze_layers_except(model, patterns)
        return
    freeze_layers_except(model, patterns)
    names = [name for name, _ in model.named_parameters()]
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {n for n in names if any(stands_for(name, n) for name in selection.names)}
    assert all(any(stands_for(name, n) for n in trainable) for name in selection.names)
    assert trainable
