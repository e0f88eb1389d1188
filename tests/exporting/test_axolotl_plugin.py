"""The older result file, read by the plugin class of Axolotl itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from exporting.models import example, golden, model_of, renamed, scan_of

from spectrum.errors import SelectionError
from spectrum.exporting import plugin_path, to_axolotl_plugin
from spectrum.results import read_scan
from spectrum.selection import select_top


def _chosen(plugin, scan, made):
    path = Path(plugin_path(scan.model.id))
    path.parent.mkdir(exist_ok=True)
    path.write_text(made.text)
    config = {"base_model": scan.model.id, "spectrum_top_fraction": made.fraction}
    plugin().pre_model_load(config)
    return config["unfrozen_parameters"]


def test_golden():
    """The whole text: finite scores for saturated ones, a bias in the pattern of its weight."""
    scan = example()
    made = to_axolotl_plugin(select_top(scan, 50), scan)
    assert (made.text, made.fraction) == (golden("axolotl-plugin.json"), 0.5)


def test_the_place_is_axolotls(spectrum_plugin):
    """Folder and name as the class builds them."""
    name = "owner/A_b.c-D"
    slug = name.replace("/", "-").replace("_", "-")
    there = spectrum_plugin.base_path + spectrum_plugin.snr_file_template.format(model_name_slug=slug)
    assert Path(there) == Path(plugin_path(name))


@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2", "qwen2_vl", "gemma3", "qwen3_moe", "gpt2", "gpt_oss"])
@pytest.mark.parametrize("top", [10, 57, 100])
def test_exactly_the_selection_is_trainable(spectrum_plugin, freeze_layers_except, name, top):
    """The plugin chooses from the file, Axolotl freezes: types of one, fused experts, embeddings of other names."""
    scan = scan_of(name)
    selection = select_top(scan, top, norms="train")
    patterns = _chosen(spectrum_plugin, scan, to_axolotl_plugin(selection, scan))
    model = model_of(name)
    freeze_layers_except(model, patterns)
    trained = {each for each, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(selection.names)


def _with_scores(scores):
    """The example with these scores of the down projections."""
    scan = example()
    entries = [
        replace(item, snr=scores[item.layer], saturated=scores[item.layer] is None)
        for item in scan.parameters
        if item.module_type.endswith("down_proj")
    ]
    return replace(scan, parameters=tuple(entries))


@pytest.mark.parametrize("scores", [(None,) * 4, (0.0,) * 4, (1.0, None, 1.0, None), (None, None, None, 0.0)])
@pytest.mark.parametrize("top", [25, 50, 75])
def test_ties_and_infinities_keep_our_order(spectrum_plugin, scores, top):
    """Scores that are equal or have no number: the plugin takes what was selected here."""
    scan = _with_scores(scores)
    selection = select_top(scan, top)
    patterns = _chosen(spectrum_plugin, scan, to_axolotl_plugin(selection, scan))
    assert set(patterns) == {f"^{name}$" for name in selection.names}


@pytest.mark.parametrize("top", range(1, 101))
def test_every_percentage(spectrum_plugin, top):
    """Types of 100, 24, 7 and 1 parameters together: int() of a float fraction gives each its count."""
    base = example().parameters[0]
    entries = [
        replace(base, name=f"m.{layer}.t{total}.weight", module_type=f"m.*.t{total}", layer=layer, snr=float(layer))
        for total in (100, 24, 7, 1)
        for layer in range(total)
    ]
    scan = replace(example(), parameters=tuple(entries), unscored=())
    selection = select_top(scan, top, embeddings="freeze")
    made = to_axolotl_plugin(selection, scan)
    patterns = _chosen(spectrum_plugin, scan, made)
    real = {text for text in patterns if "padding" not in text} - {"^lm_head.weight$", "^model.embed_tokens.weight$"}
    assert real == {f"^{name}$" for name in selection.names}


def test_the_plain_percentage_where_it_serves():
    """25 % of types of 24 is 0.25, without any entry that matches nothing."""
    base = example().parameters[0]
    entries = [replace(base, name=f"m.{n}.t.weight", module_type="m.*.t", layer=n, snr=float(n)) for n in range(24)]
    scan = replace(example(), parameters=tuple(entries), unscored=())
    made = to_axolotl_plugin(select_top(scan, 25, embeddings="freeze"), scan)
    assert (made.fraction, len(json.loads(made.text))) == (0.25, 24)


def test_frozen_embeddings_are_refused():
    """The plugin always puts two names first; where the model has one that is not selected, that is said."""
    scan = example()
    with pytest.raises(SelectionError, match="always trains 'lm_head.weight', which is not selected"):
        to_axolotl_plugin(select_top(scan, 50, embeddings="freeze"), scan)


@pytest.mark.parametrize("odd", ["a+b", "quo'te", 'dou"ble', "(x|y)", "w[0]", "ünï"])
def test_odd_names(spectrum_plugin, freeze_layers_except, odd):
    """Names full of specials are matched as they stand, with their decoys left out."""
    import torch

    scan = renamed(example(), "down_proj", odd)
    selection = select_top(scan, 50)
    patterns = _chosen(spectrum_plugin, scan, to_axolotl_plugin(selection, scan))
    every = [item.name for item in (*scan.parameters, *scan.unscored)]
    every += [f"{each}_x" for each in every]

    parameters = {name: torch.nn.Parameter(torch.zeros(2)) for name in every}

    class Named:
        """Of a module only what freezing asks for: a real one has no such names."""

        def named_parameters(self):
            return parameters.items()

        def parameters(self):
            return parameters.values()

    freeze_layers_except(Named(), patterns)
    assert {name for name, each in parameters.items() if each.requires_grad} == set(selection.names)


def test_scan_writes_where_the_plugin_looks(run, llama, spectrum_plugin):
    """And says the two lines that the config needs."""
    code, out, err = run("scan", "--model", llama, "--format", "axolotl-plugin")
    assert code == 0
    assert "selection: model_snr_results/snr_results_tiny-llama.json\n" in out
    assert "plugins: [axolotl.integrations.spectrum.SpectrumPlugin]" in err
    assert "spectrum_top_fraction: 0.25" in err
    config = {"base_model": "tiny-llama", "spectrum_top_fraction": 0.25}
    spectrum_plugin().pre_model_load(config)
    selection = select_top(read_scan(Path("snr_results/tiny-llama.json")), 25)
    assert set(config["unfrozen_parameters"]) == {f"^{name}$" for name in selection.names}
