"""Nothing is fetched while a model is built from somebody's config.json."""

import contextlib
import socket
import urllib.request

import huggingface_hub
import pytest
from huggingface_hub import constants
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from spectrum.checkpoint import Tensor
from spectrum.errors import CheckpointError
from spectrum.naming import model, name_parameters
from spectrum.naming.model import parsed, quiet
from spectrum.naming.offline import OfflineError, offline

TENSORS = {"model.w": Tensor("model.w", "F32", (64, 64), "s", 0, 16384)}
# What makes config classes look something up.
LOOKUPS = {
    "backbone": "evil/backbone", "use_timm_backbone": False, "use_pretrained_backbone": True, "backbone_config": None,
    "attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel", "_name_or_path": "evil/model",
    "tokenizer": "evil/tokenizer", "auto_map": {"AutoConfig": "evil/code--m.C", "AutoModel": "evil/code--m.M"},
    "text_config": {"attn_implementation": "evil/kernel"}, "vision_config": {"backbone": "evil/backbone"},
    "prediction_length": 2,
}  # fmt: skip
# Of the 804 model types of transformers 5.23, 51 looked something up, all of them while the config was parsed.
FAMILIES = ["detr", "conditional_detr", "table-transformer", "dab-detr", "deformable_detr"]
MORE = ["rt_detr", "rt_detr_v2", "d_fine", "grounding-dino", "maskformer", "mask2former", "oneformer", "dpt",
        "depth_anything", "upernet", "vitmatte", "vitpose", "zoedepth", "tvp", "sam2"]  # fmt: skip


@pytest.fixture
def connections(monkeypatch):
    """What was tried, each time refused."""
    tried = []

    def refuse(*arguments, **_):
        tried.append(arguments)
        raise OSError("refused by the test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    return tried


def named(config):
    """How the parameters are named; None if the config does not belong to the one tensor there is."""
    try:
        return name_parameters(TENSORS, config, same=lambda *_: False)
    except CheckpointError:
        return None


@pytest.mark.parametrize("part", range(4))
def test_no_model_type_opens_a_connection(connections, part):
    """All configs that transformers knows are parsed, with every key that is known to make one look something up."""
    types = list(CONFIG_MAPPING_NAMES)[part::4]
    assert len(types) > 100
    for model_type in types:
        with contextlib.suppress(Exception), quiet():
            parsed({"model_type": model_type} | LOOKUPS, model_type)
        assert connections == [], model_type


@pytest.mark.parametrize("model_type", [*FAMILIES, *MORE])
def test_no_model_opens_a_connection(connections, model_type):
    """The whole way from config.json to names, for those that would look something up."""
    named({"model_type": model_type} | LOOKUPS)
    named({"model_type": model_type} | LOOKUPS | {"use_timm_backbone": True})
    assert connections == []


@pytest.mark.parametrize("model_type", FAMILIES)
def test_without_the_guard_the_hub_is_asked(connections, monkeypatch, model_type):
    """The two tests above would notice: the same config asks for a repository if nothing keeps it offline."""
    monkeypatch.setattr(model, "offline", contextlib.nullcontext)
    with contextlib.suppress(Exception), quiet():
        parsed({"model_type": model_type} | LOOKUPS, model_type)
    assert connections != []


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_cannot_be_built_offline_is_named_by_the_table(connections, model_type):
    """A backbone on the Hub is not asked for; names come from the conversion table, and a note says why."""
    naming = named({"model_type": model_type, "use_timm_backbone": False, "backbone": "evil/backbone"})
    assert (naming.name_mapping, connections) == ("table", [])
    assert [parameter.name for parameter in naming.parameters] == ["model.w"]
    assert (
        "cannot be built without asking the Hub for something that config.json names, which is never done"
        in (naming.notes[0])
    )


def test_every_way_out_is_closed_and_opened_again():
    """The Hub's client, sockets and other libraries are refused inside, and only inside."""
    before = constants.HF_HUB_OFFLINE
    with offline():
        with pytest.raises(huggingface_hub.errors.OfflineModeIsEnabled):
            huggingface_hub.HfApi().repo_exists("owner/name")
        with pytest.raises(OfflineError):
            socket.create_connection(("127.0.0.1", 9))
        with pytest.raises(OfflineError):
            socket.getaddrinfo("localhost", 9)
        with pytest.raises(OfflineError):
            urllib.request.urlopen("http://127.0.0.1:9")
    assert before == constants.HF_HUB_OFFLINE
    assert socket.getaddrinfo("127.0.0.1", 9)
    with socket.socket() as plain, pytest.raises(ConnectionError):
        plain.connect(("127.0.0.1", 9))


def test_a_failed_build_opens_the_network_again(connections):
    """The switch is put back even when the constructor fails."""
    before = constants.HF_HUB_OFFLINE
    named({"model_type": "llama", "num_attention_heads": 0})
    assert before == constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    "config",
    [
        {
            "model_type": "detr",
            "use_timm_backbone": False,
            "backbone_config": {"model_type": "resnet", "depths": [10**9]},
        },
        {"model_type": "upernet", "backbone_config": {"model_type": "swin", "depths": [2, 10**9]}},
        {"model_type": "llava", "text_config": {"model_type": "llama", "num_hidden_layers": 10**9}},
        {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit", "num_hidden_layers": 10**9}},
    ],
    ids=lambda config: config["model_type"],
)
def test_nested_configs_have_the_same_limits(connections, config):
    """A billion layers of an inner model are refused before anything is built."""
    with pytest.raises(CheckpointError, match=r"config.json has 1e\+09 as '(depths|num_hidden_layers)'"):
        name_parameters(TENSORS, config, same=lambda *_: False)
    assert connections == []
