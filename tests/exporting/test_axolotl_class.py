"""Which class Axolotl loads: found from the scan alone, and the same as Axolotl's own code finds."""

import ast
import runpy
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers
from transformers.models.auto import modeling_auto

from spectrum.exporting.axolotl_conflicts import find_conflicts
from spectrum.naming import auto_classes
from spectrum.results import Model

MODEL_TYPES = sorted(modeling_auto.CONFIG_MAPPING_NAMES)


def conflict(config, model_type, name):
    """The finding on a scan of this class, or None."""
    model = Model("m", model_class=name, auto_classes=auto_classes({"model_type": model_type}))
    found = find_conflicts({"base_model": "m", **config}, model=model)
    return next((item for item in found if item.code == "SPC509"), None)


def _defaults(support):
    """{model type: the class of transformers that Axolotl's own _set_auto_model_loader() takes}."""
    folder = Path(find_spec("axolotl").origin).parent / "loaders"
    # The module imports packages that only training needs, so its one function is compiled alone.
    mapping = runpy.run_path(str(folder / "constants.py"))["MULTIMODAL_AUTO_MODEL_MAPPING"]
    tree = ast.parse((folder / "model.py").read_text())
    (function,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_set_auto_model_loader"
    ]
    scope = {
        "AutoModelForImageTextToText": transformers.AutoModelForImageTextToText,
        "MULTIMODAL_AUTO_MODEL_MAPPING": mapping,
        "get_model_support": support.get_model_support,
        "resolve_model_support": support.resolve_model_support,
    }
    exec(compile(ast.Module([function], []), "model.py", "exec"), scope)  # noqa: S102
    found = {}
    for model_type in MODEL_TYPES:
        own = support.get_model_support(model_type)
        declared = own is not None and support.resolve_model_support(own).is_multimodal
        loader = SimpleNamespace(
            cfg=SimpleNamespace(is_multimodal=declared or model_type in mapping),  # normalize_config()
            model_config=SimpleNamespace(model_type=model_type),
            auto_model_loader=transformers.AutoModelForCausalLM,
        )
        scope["_set_auto_model_loader"](loader)
        found[model_type] = loader.auto_model_loader.__name__
    return found


def test_the_class_is_axolotls(axolotl):
    """Of every model type: the class that Axolotl loads by default is no finding, and every other class is one."""
    wrong, counts = [], {True: 0, False: 0}
    for model_type, auto in _defaults(axolotl("model_support")).items():
        known = auto_classes({"model_type": model_type})
        default = known.get(auto, auto)
        for name in set(known.values()):
            counts[name == default] += 1
            if (conflict({}, model_type, name) is None) != (name == default):
                wrong.append((model_type, name, auto))
    # Axolotl registers this text model as an image-text-to-text model, for which transformers has no class.
    assert wrong == [("qwen4_exp_text", "Qwen4ExpForCausalLM", "AutoModelForImageTextToText")]
    assert min(counts.values()) > 100, counts


def test_encoder_decoders_need_a_line():
    """All of them that have no other default: missing, the error has the line; with it, nothing is found."""
    for model_type, name in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.items():
        known = auto_classes({"model_type": model_type})
        default = known.get("AutoModelForImageTextToText", known.get("AutoModelForCausalLM"))
        if name not in (default, "VoxtralForConditionalGeneration"):
            assert f"Add the line 'type_of_model: {name}'" in conflict({}, model_type, name).remedy
        for line in (name, "AutoModelForSeq2SeqLM"):
            assert conflict({"type_of_model": line}, model_type, name) is None


@pytest.mark.parametrize(
    ("config", "model_type", "name", "message", "remedy"),
    [
        (
            {}, "t5", "T5ForConditionalGeneration",
            ("Axolotl loads the model with AutoModelForCausalLM, which has no class for it; the scan names the "
            "parameters of T5ForConditionalGeneration."),
            "Add the line 'type_of_model: T5ForConditionalGeneration'.",
        ),
        (
            {}, "gemma3", "Gemma3ForCausalLM",
            ("Axolotl loads the model with AutoModelForImageTextToText, which gives Gemma3ForConditionalGeneration; "
            "the scan names the parameters of Gemma3ForCausalLM."),
            ("Add the line 'type_of_model: Gemma3ForCausalLM', or scan again with --model-class "
            "Gemma3ForConditionalGeneration."),
        ),
        (
            {"type_of_model": "LlamaModel"}, "llama", "LlamaForCausalLM",
            "type_of_model is LlamaModel, the scan names the parameters of LlamaForCausalLM.",
            "Add the line 'type_of_model: LlamaForCausalLM', or scan again with --model-class LlamaModel.",
        ),
        (
            {"type_of_model": "T5ForConditionalGeneration", "trust_remote_code": True}, "t5",
            "T5ForConditionalGeneration",
            ("Axolotl loads the model with AutoModelForCausalLM, which has no class for it; the scan names the "
            "parameters of T5ForConditionalGeneration."),
            ("Remove trust_remote_code, which makes Axolotl ignore type_of_model, and add the line "
            "'type_of_model: T5ForConditionalGeneration'."),
        ),
    ],
)  # fmt: skip
def test_messages(config, model_type, name, message, remedy):
    """What is loaded, what was scanned, and the line to add."""
    found = conflict(config, model_type, name)
    assert (found.message, found.remedy) == (message, remedy)


@pytest.mark.parametrize(
    ("config", "model_type", "name", "found"),
    [
        ({"type_of_model": "AutoModelForCausalLM"}, "gemma3", "Gemma3ForConditionalGeneration", False),
        ({"type_of_model": "AutoModelForSequenceClassification"}, "llama", "LlamaForCausalLM", True),
        ({"type_of_model": "AutoModelForSequenceClassification"}, "llama", "LlamaForSequenceClassification", False),
        ({"model_type": "AutoModel"}, "llama", "LlamaForCausalLM", True),
        ({"model_type": "LlamaForCausalLM", "type_of_model": "X"}, "llama", "LlamaForCausalLM", False),
        ({"reward_model": True}, "llama", "LlamaForCausalLM", True),
        ({"reward_model": True}, "llama", "LlamaForSequenceClassification", False),
        ({"process_reward_model": True}, "llama", "LlamaForTokenClassification", False),
        ({"base_model": "x/Pixtral"}, "llama", "LlamaForCausalLM", True),
        ({"gptq": True, "type_of_model": "LlamaModel"}, "llama", "LlamaForCausalLM", False),
        ({"trust_remote_code": True}, "llama", "LlamaForCausalLM", False),
    ],
)
def test_settings_that_choose_the_class(config, model_type, name, found):
    """Reward models, names with 'pixtral', remote code and GPTQ, which ignore type_of_model."""
    assert (conflict(config, model_type, name) is not None) is found


def test_scans_of_earlier_releases():
    """They do not tell what the auto classes load: only a class named otherwise is found."""
    model = Model("m", model_class="T5ForConditionalGeneration")
    for config, count in (({}, 0), ({"type_of_model": "AutoModel"}, 0), ({"type_of_model": "T5Model"}, 1)):
        assert len(find_conflicts(config, model=model)) == count


def test_architectures_decide_between_classes():
    """As in transformers: of several classes of one auto class, the first that config.json names."""
    many = modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES | modeling_auto.MODEL_MAPPING_NAMES
    model_type = next(name for name, classes in many.items() if not isinstance(classes, str))
    classes = many[model_type]
    for name in classes:
        found = auto_classes({"model_type": model_type, "architectures": ["X", name]})
        assert name in found.values()
    assert classes[0] in auto_classes({"model_type": model_type}).values()
