"""Which parameters are chosen."""

from dataclasses import replace

import pytest
from selection.scans import entry, layers, make_scan

from spectrum.errors import SelectionError
from spectrum.results import Unscored
from spectrum.selection import select_top


def _chosen(selection):
    return [item.layer for group in selection.groups for item in group.selected]


@pytest.mark.parametrize(
    ("n", "percent", "expected"),
    [
        (32, 25, 8), (31, 25, 7), (4, 25, 1), (3, 25, 1), (1, 1, 1), (1, 100, 1), (80, 12.5, 10), (7, 100, 7),
        (100, 7, 7), (100, 29, 29), (100, 57, 57), (200, 0.5, 1), (1000, 0.7, 7), (30, 33.3, 9), (3, 0.001, 1),
    ],
)  # fmt: skip
def test_how_many(n, percent, expected):
    """floor(n * P / 100), at least one; percentages are exact, not floats."""
    selection = select_top(make_scan(layers(range(n))), percent)
    assert _chosen(selection) == list(range(n - 1, n - 1 - expected, -1))


@pytest.mark.parametrize("percent", [0, -1, 100.01, 101, float("nan"), float("inf")])
def test_percent_out_of_range(percent):
    """More than 0, at most 100."""
    with pytest.raises(SelectionError, match="cannot be selected: give more than 0 and at most 100"):
        select_top(make_scan(layers([1.0])), percent)


def test_each_module_type_by_itself():
    """A type whose scores are all higher takes nothing from another."""
    scan = make_scan(layers([1, 2, 3, 4]) + layers([400, 300, 200, 100], "mlp.down"))
    selection = select_top(scan, 50)
    assert {group.label: [item.layer for item in group.selected] for group in selection.groups} == {
        "mlp.down": [0, 1],
        "mlp.up": [3, 2],
    }


def test_ties_by_natural_order_of_name():
    """Equal scores: layer 2 before layer 10, whatever the order in the file."""
    entries = [entry(f"model.layers.{number}.up.weight", 1.0) for number in (10, 9, 2, 1)]
    assert _chosen(select_top(make_scan(entries), 75)) == [1, 2, 9]


def test_saturated_lead_and_are_ordered_by_their_spread():
    """Saturated above every number; among them sum(sigma)/sigma_1, then the name."""
    nuclear = [5.0, 7.0, 7.0, 1.0]
    entries = [entry(f"l.{number}.v.weight", None, nuclear=value) for number, value in enumerate(nuclear)]
    entries += [entry("l.4.v.weight", 1e9), entry("l.5.v.weight", 0.0)]
    assert _chosen(select_top(make_scan(entries), 100)) == [1, 2, 0, 3, 4, 5]


def test_a_cut_among_saturated_is_reported():
    """Three saturated, two selected: the SNR did not decide. Three of three: it did."""
    entries = [entry(f"l.{number}.v.weight", None if number < 3 else 1.0) for number in range(6)]
    (warning,) = [w for w in select_top(make_scan(entries), 34).warnings if "saturated" in w]
    assert warning.startswith("v: 3 of 6 parameters are saturated (nothing below the threshold) and 2 are selected")
    assert not [w for w in select_top(make_scan(entries), 50).warnings if "saturated" in w]


def _with_others(**model):
    weights = layers([3, 1])
    others = [
        Unscored("model.layers.0.mlp.up.bias", "bias", (4,)),
        Unscored("model.layers.1.mlp.up.bias", "bias", (4,)),
        Unscored("model.embed.weight", "embedding", (9, 4)),
        Unscored("model.head.weight", "head", (9, 4)),
        Unscored("model.norm.weight", "norm", (4,)),
        Unscored("model.layers.0.norm.bias", "norm", (4,)),
        Unscored("model.layers.0.gate.weight", "router", (2, 4)),
    ]
    return make_scan(weights, others, **model)


def test_what_goes_with_the_weights():
    """Embedding and head by default, a bias beside its weight only, no norm; the count is of what is named."""
    selection = select_top(_with_others(), 50)
    assert selection.names == (
        "model.embed.weight",
        "model.head.weight",
        "model.layers.0.mlp.up.weight",
        "model.layers.0.mlp.up.bias",
    )
    assert selection.trainable == 36 + 36 + 16 + 4


def test_embeddings_frozen_and_norms_trained():
    """The two switches."""
    selection = select_top(_with_others(), 50, embeddings="freeze", norms="train")
    assert selection.names == (
        "model.layers.0.norm.bias",
        "model.norm.weight",
        "model.layers.0.mlp.up.weight",
        "model.layers.0.mlp.up.bias",
    )
    assert selection.trainable == 4 + 4 + 16 + 4


def test_bias_of_the_head():
    """The head's bias goes with the head."""
    scan = make_scan(layers([1]), [Unscored("lm_head.weight", "head", (9, 4)), Unscored("lm_head.bias", "bias", (9,))])
    assert select_top(scan, 50).names == ("lm_head.weight", "lm_head.bias", "model.layers.0.mlp.up.weight")


def test_a_tie_at_the_cut_is_reported():
    """Equal scores on both sides of it: the name decided."""
    (warning,) = [w for w in select_top(make_scan(layers([0, 0, 0, 1])), 50).warnings if "names decide" in w]
    assert warning.startswith("mlp.up: the last parameter selected and the first one left out both score 0")
    assert not [w for w in select_top(make_scan(layers([0, 0, 0, 1])), 25).warnings if "names decide" in w]


def test_bias_of_a_bare_parameter():
    """gpt-oss: `gate_up_proj_bias` stands beside the bare parameter `gate_up_proj`."""
    name = "model.layers.0.mlp.experts.gate_up_proj"
    scan = make_scan([entry(name, 1.0, kind="experts")], [Unscored(f"{name}_bias", "bias", (4, 8))])
    assert select_top(scan, 50).biases == {name: f"{name}_bias"}


def test_scored_embeddings_are_not_ranked():
    """With --all-modules the embedding has a score, and still follows --embeddings."""
    scan = make_scan([*layers([1, 2]), entry("model.embed.weight", 9.0, kind="embedding")])
    assert select_top(scan, 50).names == ("model.embed.weight", "model.layers.1.mlp.up.weight")
    assert select_top(scan, 50, embeddings="freeze").names == ("model.layers.1.mlp.up.weight",)


def test_unknown_shapes_leave_the_count_unknown():
    """No guess where an imported scan has no shapes."""
    scan = make_scan([entry("l.0.up.weight", 1.0, shape=None)])
    assert select_top(scan, 50).trainable is None


def test_names_of_an_older_transformers_are_reported():
    """Per-expert names that nobody has confirmed match nothing on transformers 5; exact ones are not doubted."""
    name = "model.layers.0.block_sparse_moe.experts.*.w1.weight"
    scan = [entry(name, 1.0, kind="experts")]
    assert any("transformers 4" in warning for warning in select_top(make_scan(scan), 50).warnings)
    exact = make_scan(scan, name_mapping="exact", transformers="4.57.3")
    assert not any("transformers 4" in warning for warning in select_top(exact, 50).warnings)


def test_no_embedding_is_reported():
    """Asked to train the embedding of a scan that lists none."""
    assert any("lists no embedding" in warning for warning in select_top(make_scan(layers([1])), 50).warnings)
    frozen = select_top(make_scan(layers([1])), 50, embeddings="freeze")
    assert frozen.warnings == ()


def test_nothing_to_rank():
    """A scan of norms only."""
    with pytest.raises(SelectionError, match="No scored weight matrix of 'm' is left to rank"):
        select_top(make_scan([entry("l.0.norm.weight", None, kind="norm")]), 50)


@pytest.mark.parametrize(("below", "said"), [(0, False), (1, True), (3, True), (4, False), (100, False)])
def test_nearly_saturated(below, said):
    """A selected matrix of which under 2 % of the 192 values, but not none, lie at or below the threshold is named."""
    (item,) = layers([106.0], "self_attn.v_proj", shape=(192, 576))
    item = replace(item, score=replace(item.score, signal_count=192 - below))
    others = layers([1.4] * 3, "mlp.up", shape=(192, 576))
    others = [replace(each, score=replace(each.score, signal_count=100)) for each in others]
    remarks = [text for text in select_top(make_scan([item, *others]), 25).warnings if "nearly saturated" in text]
    assert bool(remarks) == said
    if said:
        assert f"'{item.name}' is nearly saturated: {below} of its 192 singular values" in remarks[0]


def test_the_most_saturated_is_named():
    """Of several nearly saturated parameters, the one with the smallest share below the threshold is named first."""
    items = [
        replace(item, score=replace(item.score, signal_count=192 - below))
        for below, name in ((3, "self_attn.k_proj"), (1, "self_attn.v_proj"), (2, "mlp.up"))
        for item in layers([5.0], name, shape=(192, 576))
    ]
    for count, more in ((1, ""), (2, " So is 1 other of the selected."), (3, " So are 2 others of the selected.")):
        (remark,) = [text for text in select_top(make_scan(items[-count:]), 25).warnings if "nearly saturated" in text]
        named = items[-1] if count == 1 else items[1]
        assert remark.startswith(f"'{named.name}' is nearly saturated")
        assert f"many times.{more} Compare" in remark
