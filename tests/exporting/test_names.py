"""The plain list and the one expression."""

import re
from dataclasses import replace

import pytest
from exporting.models import example, golden, renamed, scan_of

from spectrum.errors import SelectionError
from spectrum.exporting import to_axolotl, to_names, to_regex
from spectrum.exporting.matching import MOST_EXPERTS, expression, runtime_names
from spectrum.results import Unscored
from spectrum.selection import select_top


def test_goldens():
    """The whole texts."""
    scan = example()
    selection = select_top(scan, 50)
    assert to_names(selection, scan) == golden("names.txt")
    assert to_regex(selection, scan) == golden("regex.txt")


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "mixtral", "qwen2_moe", "gpt_oss"])
@pytest.mark.parametrize("top", [30, 100])
def test_every_way_of_matching_finds_the_selection(name, top):
    """Among all parameters of the model that scan was made of, with re.search, match and fullmatch."""
    scan = scan_of(name)
    selection = select_top(scan, top)
    text = to_regex(selection, scan).strip()
    every = [item.name for item in (*scan.parameters, *scan.unscored)]
    for match in (re.search, re.match, re.fullmatch):
        assert {each for each in every if match(text, each)} == set(selection.names)
    assert set(to_names(selection, scan).splitlines()) == set(selection.names)


def test_names_that_share_numbers_share_an_alternative():
    """One for a prefix and its numbers; numbers in order; a name without one stays whole."""
    names = [f"m.{layer}.{part}" for layer in (10, 9) for part in ("a.weight", "b.weight")]
    assert expression([*names, "m.7.a.weight", "x_y"]) == (r"x_y|m\.(?:7|9|10)\.a\.weight|m\.(?:9|10)\.b\.weight")


def test_thousands_of_experts_are_few_patterns():
    """One alternative for the experts of all layers; still none of another layer or projection."""
    text = f"^(?:{expression(f'm.layers.{layer}.experts.*.w1.weight' for layer in range(1, 60))})$"
    assert len(text) < 300
    assert re.search(text, "m.layers.59.experts.255.w1.weight")
    assert not re.search(text, "m.layers.60.experts.255.w1.weight")
    assert not re.search(text, "m.layers.5.experts.255.w10.weight")
    assert not re.search(text, "m.layers.5.experts.x.w1.weight")


def test_a_sample_of_the_experts_stands_for_all():
    """Experts of transformers 4 of which two were scored: the list and the match know them all."""
    base = example().parameters[0]
    stacked = scan_of("mixtral").parameters[0]
    matrices = tuple(replace(stacked.matrices[0], label=label) for label in ("1", "6"))
    about = {"kind": "experts", "shape": (8, 64, 64), "matrices": matrices}
    scan = replace(example(), parameters=(replace(base, name="m.0.experts.*.w1.weight", **about),), unscored=())
    names = to_names(select_top(scan, 100, embeddings="freeze"), scan).splitlines()
    assert names == [f"m.0.experts.{expert}.w1.weight" for expert in range(8)]


@pytest.mark.parametrize("odd", ["a+b", "(x|y)", "back\\slash", "quo'te", "ünï", "w[0]", "^x$", "a b"])
def test_specials_match_themselves(odd):
    """And nothing else."""
    scan = renamed(example(), "down_proj", odd)
    selection = select_top(scan, 50, embeddings="freeze")
    text = to_regex(selection, scan).strip()
    assert re.search(text, f"model.layers.1.mlp.{odd}.weight")
    assert not re.search(text, f"model.layers.1.mlp.{odd}xweight")


@pytest.mark.parametrize("odd", ["a\nb", "a\x00", "\x85"])
def test_control_characters_are_refused(odd):
    """In a list a line break would make two names of one."""
    scan = renamed(example(), "down_proj", odd)
    for write in (to_names, to_regex):
        with pytest.raises(SelectionError, match="holds a control character"):
            write(select_top(scan, 50), scan)


@pytest.mark.parametrize("rows", [10**12, 2**63 - 1])
def test_more_experts_than_any_model_has(rows):
    """An altered scan is refused before a name is made; a long parameter of its own is one name."""
    base = example()
    scan = replace(base, unscored=(*base.unscored, Unscored("model.extra.weight", "matrix", (rows, 4))))
    selection = select_top(scan, 50)
    assert to_names(selection, scan) == golden("names.txt")
    others = tuple(Unscored(f"model.layers.{n}.experts.*.w1.bias", "bias", (rows, 4)) for n in range(2))
    scan = replace(base, unscored=(*base.unscored, *others))
    for export in (to_names, to_regex, to_axolotl):
        with pytest.raises(SelectionError) as caught:
            export(selection, scan)
        assert str(caught.value) == (
            f"The scan speaks of {2 * rows:,} parameters of experts, {rows:,} of them under "
            "'model.layers.0.experts.*.w1.bias'; no model has more than 1,000,000. "
            "The file was altered; scan the model again."
        )


def test_as_many_experts_as_models_may_have():
    """The limit itself is allowed."""
    base = example()
    expert = Unscored("model.layers.0.experts.*.w1.bias", "bias", (MOST_EXPERTS, 4))
    assert len(runtime_names(replace(base, parameters=(), unscored=(expert,)))[expert.name]) == MOST_EXPERTS
    one = replace(expert, name="model.layers.1.experts.*.w1.bias", shape=(1, 4))
    with pytest.raises(SelectionError, match="1,000,001 parameters of experts"):
        runtime_names(replace(base, unscored=(expert, one)))
