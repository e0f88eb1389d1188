"""For every rule a project that breaks it: what is altered, and the command's further words."""

import json
import os
import shutil
from importlib import metadata
from pathlib import Path

from checking.conftest import CONFIG, SCAN
from conftest import tiny_llama, write_checkpoint

GATE = "model.layers.0.mlp.gate_proj.weight"
WITH_CONFIG = ("--config", CONFIG)
WITH_MODEL = ("--model", "tiny-llama")


def edit(change):
    """Alter the scan file."""
    scan = json.loads(Path(SCAN).read_text())
    change(scan)
    Path(SCAN).write_text(json.dumps(scan, indent=1))


def config(*settings, lines=(), patterns=None):
    """Write a config: settings, and more or other lines of the list."""
    text = Path(CONFIG).read_text()
    if patterns is not None:
        text = "unfrozen_parameters:\n" + "".join(f"- {json.dumps(line)}\n" for line in patterns)
    text += "".join(f"- {json.dumps(line)}\n" for line in lines)
    Path(CONFIG).write_text("".join(f"{setting}\n" for setting in settings) + text)
    return WITH_CONFIG


def older(content):
    """An older result file in place of the scan."""
    Path(SCAN).write_text(json.dumps(content))
    return ()


def _plain(*names, snr=1.0):
    return {name: {"snr": snr, "type": name.rpartition(".")[2]} for name in names}


def _nan(_):
    text = Path(SCAN).read_text()
    start = text.index('"snr": ') + len('"snr": ')
    Path(SCAN).write_text(text[:start] + "NaN" + text[text.index(",", start) :])
    return ()


def _edited(change, words=()):
    def _case(_):
        edit(change)
        return words

    return _case


def _empty(_):
    Path(SCAN).write_text("\n")
    return ()


def _without_spectra(_):
    Path("snr_results/tiny-llama.spectra.safetensors").unlink()
    return ()


def _half_the_spectra(_):
    path = Path("snr_results/tiny-llama.spectra.safetensors")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return ()


def _smaller(_):
    write_checkpoint(Path("smaller"), {"_": tiny_llama(layers=3)})
    return "--model", "smaller"


def _retrained(_):
    path = Path("tiny-llama/model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return WITH_MODEL


def _snapshot(_):
    snapshot = Path("models--owner--tiny-llama/snapshots") / ("a" * 40)
    shutil.copytree("tiny-llama", snapshot)
    edit(lambda scan: scan["model"].update(revision="b" * 40))
    return "--model", snapshot


def _younger(_):
    os.utime("tiny-llama/model.safetensors", (4e9, 4e9))
    return WITH_MODEL


def _renamed(scan):
    parameters = scan["parameters"]
    parameters[GATE.replace("gate_proj", "gate_project")] = parameters.pop(GATE)


def _no_transformers(monkeypatch):
    def _version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", _version)
    return ()


def _tied(scan):
    entry = scan["unscored"].pop("lm_head.weight")
    scan["model"]["parameters"] -= entry["shape"][0] * entry["shape"][1]


def _other_header(_):
    text = Path(CONFIG).read_text()
    Path(CONFIG).write_text(text.replace("# options: --top 50", "# options: --top half"))
    return WITH_CONFIG


def _multimodal(_):
    name = "model.vision_tower.patch.weight"
    edit(lambda scan: scan["unscored"].update({name: {"kind": "matrix", "shape": [4, 4]}}))
    return config("freeze_mm_modules: true", lines=[f"^{name}$"])


def _text(text):
    def _case(_):
        Path(CONFIG).write_text(text)
        return WITH_CONFIG

    return _case


def _imported_with_config(_):
    older(_plain("model.layers.0.mlp.up_proj"))
    return config(patterns=["^model.layers.0.mlp.up_proj.weight$", "^lm_head.weight$"])


CASES = {
    "SPC101": _empty,
    "SPC102": _nan,
    "SPC103": _edited(lambda scan: scan.update(version=2)),
    "SPC104": lambda _: older(_plain("a.0.q")),
    "SPC105": _edited(lambda scan: scan["parameters"][GATE].pop("snr")),
    "SPC107": _edited(lambda scan: scan["parameters"].pop(GATE)),
    "SPC108": lambda _: older(_plain("a.0.q")),
    "SPC110": lambda _: older(_plain("a.0.q", "a.0.mlp.router")),
    "SPC111": lambda _: older(_plain("a.0.q", "a.0.mlp.router")),
    "SPC113": _without_spectra,
    "SPC114": _half_the_spectra,
    "SPC201": lambda _: ("--model", "./nowhere"),
    "SPC202": _smaller,
    "SPC203": _retrained,
    "SPC204": _snapshot,
    "SPC205": _edited(lambda scan: scan["model"]["fingerprint"].update(content="hub:0"), WITH_MODEL),
    "SPC206": _younger,
    "SPC301": _edited(lambda scan: scan["model"].update(name_mapping="table")),
    "SPC302": lambda _: ("--transformers", "4.57.6"),
    "SPC303": lambda _: ("--transformers", "5.0.0"),
    "SPC304": lambda _: older(_plain("a.0.experts.0.w1", "a.0.experts.1.w1")),
    "SPC305": _no_transformers,
    "SPC306": _edited(_renamed, WITH_MODEL),
    "SPC401": _text("a: [1"),
    "SPC402": _text("adapter: lora\n"),
    "SPC403": _text("unfrozen_parameters:\n- ^a$\n- [0-9]\n"),
    "SPC404": lambda _: config("unfrozen_parameters: [x]"),
    "SPC405": lambda _: config(lines=["model.(layers"]),
    "SPC406": lambda _: config(lines=["a{e<=1}"]),
    "SPC407": lambda _: config(lines=["^model.layers.7.mlp.up_proj.weight$"]),
    "SPC408": lambda _: config(lines=[r"^model\.layers\.0\.mlp.up_proj.weight$"]),
    "SPC409": _edited(lambda scan: scan["skipped"].update({"mtp.0.up.weight": "not in the model"})),
    "SPC410": _edited(_tied, WITH_CONFIG),
    "SPC411": lambda _: config(lines=["^model.layers.0.mlp.gate"]),
    "SPC413": lambda _: config(lines=["^lm_head.weight$[60:81]"]),
    "SPC414": lambda _: config(lines=["^lm_head.weight$[60:]"]),
    "SPC415": lambda _: config(lines=["^model.norm.weight$"]),
    "SPC416": lambda _: (*WITH_CONFIG, "--top", "75"),
    "SPC417": _imported_with_config,
    "SPC418": _other_header,
    "SPC501": lambda _: config("adapter: lora"),
    "SPC502": lambda _: config("gradient_checkpointing_kwargs:\n  use_reentrant: true"),
    "SPC503": lambda _: config("fsdp_config:\n  offload_params: true"),
    "SPC504": lambda _: config("deepspeed: deepspeed_configs/zero3_bf16.json", lines=["^lm_head.weight$[60:]"]),
    "SPC505": lambda _: config("base_model: meta-llama/Meta-Llama-3-8B", patterns=["^lm_head.weight$"]),
    "SPC506": lambda _: config("plugins: [axolotl.integrations.spectrum.SpectrumPlugin]"),
    "SPC507": lambda _: config("load_in_4bit: true"),
    "SPC508": _edited(lambda scan: scan["model"].update(revision="b" * 40)),
    "SPC509": lambda _: config("type_of_model: MistralForCausalLM"),
    "SPC510": _multimodal,
    "SPC601": lambda _: older(_plain("a.0.q", "a.1.q", "a.2.q")),
    "SPC602": lambda _: older(_plain("a.0.input_layernorm")),
}


def _also(first, words):
    def _case(monkeypatch):
        first(monkeypatch)
        return words()

    return _case


CASES["SPC409"] = _also(CASES["SPC409"], lambda: config(lines=["^mtp.0.up.weight$"]))
CASES["SPC508"] = _also(CASES["SPC508"], lambda: config(f"revision_of_model: {'c' * 40}"))
