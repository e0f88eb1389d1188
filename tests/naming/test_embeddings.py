"""Which parameters are the input embedding, the output head and its bias, and which are other tables."""

import pytest
import torch
import transformers
from naming.architectures import GPT, TEXT, save, silenced
from selection.scans import layers

from spectrum.exporting import to_axolotl
from spectrum.naming import name_parameters
from spectrum.results import Model, Scan, Settings, Unscored
from spectrum.selection import select_top

ENCODER_DECODER = {
    "vocab_size": 72, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
BERT = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
MUSICGEN = {
    "text_encoder": {"model_type": "t5", "vocab_size": 72, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 1,
                     "num_heads": 4},
    "audio_encoder": {"model_type": "encodec", "hidden_size": 16, "num_filters": 4, "codebook_size": 64,
                      "codebook_dim": 16, "upsampling_ratios": [2], "num_lstm_layers": 1},
    "decoder": {"vocab_size": 72, "hidden_size": 32, "ffn_dim": 40, "num_hidden_layers": 1, "num_attention_heads": 4,
                "num_codebooks": 2, "pad_token_id": 0, "bos_token_id": 0},
}  # fmt: skip

KINDS = {
    "InklingForCausalLM": (
        "inkling_text",
        {"num_hidden_layers": 2},
        {"model.embed_tokens.weight": "embedding", "lm_head.weight": "head"},
    ),
    "MuseSparkTextModel": ("muse_spark_text", {"num_hidden_layers": 2}, {"embed_tokens.weight": "embedding"}),
    "Gemma3nForCausalLM": (
        "gemma3n_text",
        None,
        {"model.embed_tokens.weight": "embedding", "model.embed_tokens_per_layer.weight": "lookup"},
    ),
    "BertForMaskedLM": (
        "bert",
        BERT,
        {
            "bert.embeddings.word_embeddings.weight": "embedding",
            "bert.embeddings.token_type_embeddings.weight": "lookup",
            "bert.embeddings.position_embeddings.weight": "position",
            "cls.predictions.bias": "head-bias",
        },
    ),
    "RobertaPreLayerNormForMaskedLM": ("roberta-prelayernorm", BERT, {"lm_head.bias": "head-bias"}),
    "MarianMTModel": (
        "marian",
        ENCODER_DECODER | {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 72},
        {
            "model.decoder.embed_tokens.weight": "embedding",
            "model.encoder.embed_tokens.weight": "lookup",
            "model.decoder.embed_positions.weight": "position",
        },
    ),
    "MusicgenForConditionalGeneration": (
        "musicgen",
        MUSICGEN,
        {
            "text_encoder.shared.weight": "embedding",
            "decoder.lm_heads.1.weight": "head",
            "decoder.model.decoder.embed_tokens.1.weight": "lookup",
        },
    ),
}


def kinds_of(model_class):
    """Kinds by name, of the model built on the meta device and stored as headers."""
    from spectrum.checkpoint import Tensor

    model_type, config, _ = KINDS[model_class]
    with silenced(), torch.device("meta"):
        parsed = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type](**(config or {}))
        model = getattr(transformers, model_class, transformers.AutoModel)._from_config(parsed)
    tensors = {n: Tensor(n, "F32", tuple(p.shape), "s", 0, 0) for n, p in model.named_parameters()}
    content = {"model_type": model_type, "architectures": [model_class], **parsed.to_dict()}
    return {p.name: p.kind for p in name_parameters(tensors, content, model_class=model_class, same=None).parameters}


@pytest.mark.parametrize("model_class", KINDS)
def test_kinds_follow_the_getters(model_class):
    """The input embedding and the head are those that transformers' getters name; other tables are lookups."""
    if model_class not in transformers.__all__:
        pytest.skip(f"transformers {transformers.__version__} has no {model_class}")
    kinds = kinds_of(model_class)
    expected = KINDS[model_class][2]
    assert {name: kinds[name] for name in expected} == expected
    assert sum(kind == "embedding" for kind in kinds.values()) == 1


def scan_of(*unscored):
    """One scored matrix and these parameters."""
    return Scan(Model("m", parameters=1000), Settings(), tuple(layers([1.0])), unscored, {})


@pytest.mark.parametrize(
    "head, trained",
    [
        ([], ["wte.weight", "cls.bias"]),
        ([Unscored("cls.decoder.weight", "head", (8, 4))], ["cls.decoder.weight", "cls.bias", "wte.weight"]),
    ],
    ids=["tied", "untied"],
)
def test_the_heads_bias_goes_with_it(head, trained):
    """Tied or not, the head's bias is trained with the embeddings; other tables never are."""
    tables = [Unscored("types.weight", "lookup", (2, 4)), Unscored("cls.bias", "head-bias", (8,))]
    scan = scan_of(Unscored("wte.weight", "embedding", (8, 4)), *head, *tables)
    selection = select_top(scan, 100)
    assert list(selection.names[: len(trained)]) == trained
    assert "types" not in to_axolotl(selection, scan)
    frozen = select_top(scan, 100, embeddings="freeze")
    assert list(frozen.names) == ["model.layers.0.mlp.up.weight"]


def test_sinusoidal_positions_do_not_start_at_random(tmp_path):
    """Marian stores no position tables: they are computed, alike on each load, so no note says otherwise."""
    with silenced():
        checkpoint = save(transformers.MarianMTModel(transformers.MarianConfig(**ENCODER_DECODER)), tmp_path)
    assert not any("embed_positions" in name for name in checkpoint.tensors)
    naming = name_parameters(checkpoint.tensors, checkpoint.config, model_class="MarianMTModel", same=checkpoint.same)
    assert naming.name_mapping == "exact"
    assert any("embed_positions" in parameter.name for parameter in naming.parameters)
    assert not any("random" in note for note in naming.notes)


def test_gpt2_is_as_before(tmp_path):
    """One table for words, one for positions."""
    with silenced():
        checkpoint = save(transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT)), tmp_path)
    naming = name_parameters(checkpoint.tensors, checkpoint.config, same=checkpoint.same)
    kinds = {parameter.name: parameter.kind for parameter in naming.parameters}
    assert (kinds["transformer.wte.weight"], kinds["transformer.wpe.weight"]) == ("embedding", "position")
