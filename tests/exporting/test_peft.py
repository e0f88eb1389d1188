"""The LoraConfig settings, given to PEFT: exactly the selected modules get an adapter, of the rank written."""

import json
import math
import re
import warnings
from dataclasses import replace

import pytest
import torch
from exporting.models import example, golden, model_of, renamed, scan_of

from spectrum.errors import SelectionError
from spectrum.exporting import LoraOptions, to_peft
from spectrum.selection import select_top

MODELS = ["llama", "llama-tied", "qwen2", "qwen2_vl", "gemma3", "mixtral", "qwen3_moe", "qwen2_moe", "gpt_oss"]


def _settings(selection, scan, **options):
    return json.loads(to_peft(selection, scan, LoraOptions(**options))[0])


def _adapted(peft, model, settings):
    """The model with adapters; with a warning that PEFT gives where nothing matched as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*no (module|parameter) was matched|.*not.*ensure_weight_tying")
        return peft.get_peft_model(model, peft.LoraConfig(**settings))


def _name(path):
    return path.removeprefix("base_model.model.").replace(".base_layer", "")


def _ranks(model):
    """Parameter -> rank of its adapter."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    return {
        f"{_name(path)}.{module.parameter_name if isinstance(module, ParamWrapper) else 'weight'}": module.r["default"]
        for path, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def _saved(model):
    """Parameters that are trained in full."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or ".modules_to_save.default." in name for name in trained)
    return {_name(name).replace(".modules_to_save.default", "") for name in trained if "modules_to_save" in name}


FREEZE = "--embeddings freeze leaves them out."


def test_golden():
    """The whole text, ranks by SNR included."""
    scan = example()
    text, notes = to_peft(select_top(scan, 50), scan, LoraOptions(rank=8, by_snr=True))
    assert text == golden("peft.json")
    assert notes == (
        f"Embedding and head, 9,216 weights, are trained in full beside the adapters. {FREEZE}",
        "LoRA adapts matrices: the 2 biases beside selected weights stay as they are.",
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("top", [30, 100])
def test_exactly_the_selection_is_adapted(peft, name, top):
    """Dense, multimodal, tied, and stacked experts with shared ones and dense layers beside them."""
    scan = scan_of(name)
    selection = select_top(scan, top)
    model = _adapted(peft, model_of(name), _settings(selection, scan))
    weights = {item.name for group in selection.groups for item in group.selected}
    assert set(_ranks(model)) == weights
    assert _saved(model) == set(selection.embeddings)
    if not (weights & {item.name for item in scan.parameters if item.kind == "experts"}):
        return
    assert any(".experts." in each for each in _ranks(model))


def test_routers_are_adapted_as_parameters(peft):
    """With --all-modules: on transformers 5 they are no linear layers, and PEFT would take their name for others."""
    for name in ("mixtral", "qwen3_moe", "gpt_oss"):
        scan = scan_of(name, kinds=("router",))
        selection = select_top(scan, 50, embeddings="freeze")
        model = _adapted(peft, model_of(name), _settings(selection, scan))
        assert set(_ranks(model)) == {item.name for group in selection.groups for item in group.selected}


def test_norms_are_trained_in_full(peft):
    """With --norms train, beside adapters and embeddings."""
    scan = scan_of("qwen2")
    selection = select_top(scan, 50, norms="train")
    model = _adapted(peft, model_of("qwen2"), _settings(selection, scan))
    assert _saved(model) == {*selection.embeddings, *selection.norms}


def test_tied_weights_stay_tied(peft):
    """The head uses the embedding that is trained, not the one it was tied to before."""
    scan = scan_of("llama-tied")
    settings = _settings(select_top(scan, 50), scan)
    assert (settings["modules_to_save"], settings["ensure_weight_tying"]) == (["model.embed_tokens"], True)
    model = _adapted(peft, model_of("llama-tied"), settings)
    embedding = model.base_model.model.model.embed_tokens.modules_to_save["default"].weight
    head = model.base_model.model.lm_head.modules_to_save["default"].weight
    assert head.data_ptr() == embedding.data_ptr()


def test_tied_weights_that_peft_cannot_keep_together():
    """An embedding of another name, with no head of its own."""
    scan = scan_of("gpt2")
    with pytest.raises(SelectionError, match="only if the embedding is called embed_tokens. Pass --embeddings freeze"):
        to_peft(select_top(scan, 50), scan, LoraOptions())
    to_peft(select_top(scan, 50, embeddings="freeze"), scan, LoraOptions())


def test_ranks_follow_snr(peft):
    """Twice the median's SNR, twice the rank; at most four times; alpha / rank stays; PEFT makes them so."""
    scan = scan_of("mixtral")
    numbers = [1.0, 2.1, 40.0, 0.01]
    entries = tuple(replace(item, snr=numbers[item.layer]) for item in scan.parameters)
    scan = replace(scan, parameters=entries)
    selection = select_top(scan, 100)
    model = _adapted(peft, model_of("mixtral"), _settings(selection, scan, rank=8, alpha=24, by_snr=True))
    middle = (1.0 + 2.1) / 2
    wanted = {
        item.name: int(8 * 2.0 ** max(-2, min(2, round(math.log2(numbers[item.layer] / middle))))) for item in entries
    }
    assert set(wanted.values()) == {2, 4, 8, 32}
    assert _ranks(model) == wanted
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert {module.scaling["default"] for module in layers} == {3.0}


def test_saturated_scores_rank_with_the_highest():
    """No infinity in a rank; where all are saturated, all have the rank asked for."""
    scan = example()
    settings = _settings(select_top(scan, 100), scan, by_snr=True)
    ranks = {key.split("\\.")[2] for key, rank in settings["rank_pattern"].items() if "q_proj" in key and rank > 16}
    assert ranks == {"1", "2"}  # layer 1 is saturated, layer 2 has the highest number
    entries = tuple(replace(item, snr=None, saturated=True) for item in scan.parameters)
    assert "rank_pattern" not in _settings(select_top(replace(scan, parameters=entries), 100), scan, by_snr=True)


def _experts_of_transformers_4(layers, experts):
    """A scan of one module per expert, and the modules that it stands for."""
    base = example().parameters[0]
    matrices = scan_of("mixtral").parameters[0].matrices[:1]
    entries = [
        replace(
            base,
            name=f"model.layers.{layer}.block_sparse_moe.experts.*.w1.weight",
            module_type="model.layers.*.block_sparse_moe.experts.*.w1",
            kind="experts",
            layer=layer,
            shape=(experts, 64, 64),
            snr=float(layer + 1),
            matrices=tuple(replace(matrices[0], label=str(expert)) for expert in range(experts)),
        )
        for layer in range(layers)
    ]
    return replace(example(), parameters=tuple(entries), unscored=())


def test_thousands_of_modules_are_one_expression(peft):
    """Experts of transformers 4: a short expression under which PEFT adapts all experts of the selected layers."""
    scan = _experts_of_transformers_4(24, 64)
    settings = _settings(select_top(scan, 50, embeddings="freeze"), scan, by_snr=True)
    assert len(settings["target_modules"]) < 200
    _, notes = to_peft(select_top(scan, 50, embeddings="freeze"), scan, LoraOptions())
    assert notes[1].endswith("on transformers 5, PEFT looks at their last part only, in all layers.")
    model = torch.nn.Module()
    for layer in (0, 1, 12, 23):
        for expert in (0, 7, 63):
            _attach(model, f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w1", torch.nn.Linear(8, 8))
            _attach(model, f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w2", torch.nn.Linear(8, 8))
    model = _adapted(peft, model, settings)
    assert set(_ranks(model)) == {
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"
        for layer in (12, 23)
        for expert in (0, 7, 63)
    }


def test_peft_reads_names_of_transformers_4_otherwise(peft):
    """The reason for that note: one layer is named, and all are adapted."""
    expression = r"model\.layers\.0\.(?:self_attn\.q_proj|block_sparse_moe\.experts\.[0-9]+\.(?:w1|w2|w3))"
    settings = {"target_modules": expression, "lora_dropout": 0.0}
    model = _adapted(peft, model_of("mixtral"), settings)
    assert {name.split(".")[2] for name in _ranks(model)} == {"0", "1", "2", "3"}


def _attach(model, path, module):
    *parents, leaf = path.split(".")
    for part in parents:
        if not hasattr(model, part):
            model.add_module(part, torch.nn.Module())
        model = getattr(model, part)
    model.add_module(leaf, module)


def test_four_bit():
    """Stacked experts stay in 16 bit, which is said; what is a linear layer and needs its parameter is refused."""
    scan = scan_of("mixtral")
    _, notes = to_peft(select_top(scan, 50), scan, LoraOptions(four_bit=True))
    assert notes[-1].startswith("bitsandbytes quantises linear layers only: stacked experts stay in 16 bit")
    scan = scan_of("qwen2_moe")
    with pytest.raises(SelectionError, match="shared_expert.+does not work in 4 bit. Leave it out with --exclude"):
        to_peft(select_top(scan, 50), scan, LoraOptions(four_bit=True))


def test_a_saved_module_inside_an_adapted_one_is_refused(peft):
    """Gemma 3's projector: adapting its bare parameter wraps the norm inside, which PEFT then does not find."""
    scan = scan_of("gemma3", kinds=("matrix",))
    selection = select_top(scan, 100, norms="train")
    with pytest.raises(SelectionError, match="would miss 'model.multi_modal_projector.mm_soft_emb_norm'"):
        to_peft(selection, scan, LoraOptions())


def test_a_decoy_behind_a_dot_is_refused():
    """PEFT also takes modules whose names end with the target: a model that has such a one is refused."""
    scan = example()
    decoys = renamed(scan, "model.", "draft.model.").parameters
    scan = replace(scan, parameters=(*scan.parameters, *(replace(item, module_type="d") for item in decoys)))
    selection = select_top(scan, 25, embeddings="freeze")
    selection = replace(selection, groups=tuple(group for group in selection.groups if group.module_type != "d"))
    with pytest.raises(SelectionError, match="PEFT's target_modules would select 'draft.model.layers"):
        to_peft(selection, scan, LoraOptions())


def test_names_that_are_no_expressions():
    """Keys of rank_pattern are escaped, so that a name's specials match themselves."""
    scan = renamed(example(), "down_proj", "(x+y")
    settings = _settings(select_top(scan, 50, embeddings="freeze"), scan, by_snr=True)
    key = next(key for key in settings["rank_pattern"] if "x" in key)
    assert re.match(rf"(.*\.)?({key})$", "model.layers.1.mlp.(x+y")
