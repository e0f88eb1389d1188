"""Which class is built, what is tried next, and which configs are refused."""

import time

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from spectrum.errors import CheckpointError
from spectrum.naming.classes import candidate_classes
from spectrum.naming.limits import check_counts
from spectrum.naming.model import build_first

MUSICGEN = {"text_encoder": {"model_type": "t5"}, "audio_encoder": {"model_type": "encodec"}}


@pytest.mark.parametrize(
    "model_type, architecture, inner",
    [
        ("musicgen", "MusicgenForConditionalGeneration", MUSICGEN | {"decoder": {"model_type": "musicgen_decoder"}}),
        (
            "musicgen_melody",
            "MusicgenMelodyForConditionalGeneration",
            MUSICGEN | {"decoder": {"model_type": "musicgen_melody_decoder"}},
        ),
        ("evolla", "EvollaForProteinText2Text", {}),
    ],
)
def test_a_class_that_nobody_can_build_gives_way(model_type, architecture, inner):
    """The class of config.json is taken if the one that Axolotl would ask for cannot be built."""
    config = {"model_type": model_type, "architectures": [architecture], **inner}
    candidates = candidate_classes(config)
    assert len(candidates) == 2
    chosen, meta = build_first(candidates, config, 2000)
    assert (chosen.name, type(meta.model).__name__) == (architecture, architecture)
    if candidates[0].name != architecture:
        assert chosen.notes[0].startswith(f"{candidates[0].name} cannot be built: ")
        assert chosen.notes[0].endswith(f"The names are those of {architecture}, which config.json names.")


def test_many_architectures_cost_nothing():
    """A list of 100,000 names is looked up in one set, and only one of them counts."""
    names = [f"Unknown{number}" for number in range(100_000)]
    candidate_classes({"model_type": "llama"})  # imports transformers
    start = time.process_time()
    found = candidate_classes({"model_type": "llama", "architectures": [*names, "BertModel", "T5Model"]})
    assert time.process_time() - start < 2
    assert [each.name for each in found] == ["LlamaForCausalLM", "BertModel"]


@pytest.mark.parametrize(
    "wanted, near", [("LlamaForCasualLM", "LlamaForCausalLM"), ("MixtralForCausal", "MixtralForCausalLM")]
)
def test_an_unknown_class_names_near_ones(wanted, near):
    """A misspelt --model-class is an error that suggests the right one."""
    with pytest.raises(CheckpointError, match=f"has no class '{wanted}'. Pass one .*{near}"):
        candidate_classes({"model_type": "llama"}, wanted)


def test_a_class_that_is_not_a_model_is_refused():
    """A tokenizer or a config is not built."""
    config = {"model_type": "llama"}
    with pytest.raises(CheckpointError, match="'LlamaConfig' is not a model class"):
        build_first(candidate_classes(config, "LlamaConfig"), config, 10)


@pytest.mark.parametrize(
    "noted",
    [
        {"num_samples_seen": 5_000_000},
        {"num_samples_seen": 10**12},
        {"training": {"num_updates": 10**10, "dataset_size": 10**11, "batch_sizes": [10**9]}},
        {"max_position_embeddings": 10**9},
    ],
)
def test_what_a_trainer_notes_down_is_accepted(noted):
    """Numbers under names that no config class knows make nothing, whatever they look like."""
    check_counts({"model_type": "llama", **noted}, 10)


@pytest.mark.parametrize("name", ["hidden_size", "intermediate_size", "vocab_size", "head_dim"])
@pytest.mark.parametrize("inside", [False, True])
def test_sizes_that_a_class_knows_are_bounded(name, inside):
    """At the top and in an inner config."""
    config = {"model_type": "llama", name: 10**9}
    with pytest.raises(CheckpointError, match=rf"has 1e\+09 as '{name}'"):
        check_counts({"model_type": "llava", "text_config": config} if inside else config, 10)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_numbers_that_are_none(value):
    """NaN, infinity and numbers of hundreds of digits are refused, and quoted as what they are."""
    quoted = {True: "a number of hundreds of digits"}.get(isinstance(value, int), str(value))
    with pytest.raises(CheckpointError, match=f"config.json has {quoted} as 'num_hidden_layers'"):
        check_counts({"model_type": "llama", "num_hidden_layers": value}, 10)


def test_the_defaults_of_every_model_type_are_accepted():
    """No limit refuses what a config class of transformers has by itself."""
    for model_type in CONFIG_MAPPING_NAMES:
        try:
            default = CONFIG_MAPPING[model_type]().to_dict()
        except Exception:  # noqa: BLE001, S112 - a config that has no default, or a missing package
            continue
        check_counts(default | {"model_type": model_type}, 10)
