"""Tiny configs of many architectures, and checkpoints made of them."""

from __future__ import annotations

import contextlib
import json
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from spectrum.checkpoint.tensors import Tensor
from spectrum.naming.parameters import Matrix


@dataclass(frozen=True)
class Architecture:
    """A model class and a config of it small enough to build in a moment."""

    model_type: str
    model_class: str
    config: dict[str, Any] = field(default_factory=dict)
    dense: bool = True
    asked: bool = False  # the class has to be asked for: the class rule prefers another one of the same type

    variant: str = ""

    def __str__(self) -> str:
        return f"{self.model_type}{self.variant}"

    @property
    def exists(self) -> bool:
        return self.model_type in CONFIG_MAPPING and self.model_class in transformers.__all__


# Distinct sizes, so that no axis is taken for another.
TEXT = {
    "vocab_size": 72,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = TEXT | {"num_experts": 12, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
LOCAL = TEXT | {"num_local_experts": 12, "num_experts_per_tok": 2}
DEEPSEEK = TEXT | {
    "n_routed_experts": 12,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 12,
    "kv_lora_rank": 10,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
GPT = {
    "vocab_size": 72,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 14,
    "num_channels": 3,
}
ENCODER = TEXT | {"type_vocab_size": 2}
ENCODER.pop("num_key_value_heads")
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_heads": 3,
    "out_hidden_size": 32,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
MROPE = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}


def _text(model_type: str, model_class: str, **config: Any) -> Architecture:
    return Architecture(model_type, model_class, TEXT | config)


ARCHITECTURES = (
    _text("llama", "LlamaForCausalLM"),
    _text("mistral", "MistralForCausalLM"),
    _text("qwen2", "Qwen2ForCausalLM"),
    _text("qwen3", "Qwen3ForCausalLM", head_dim=8),
    _text("phi", "PhiForCausalLM"),
    _text("phi3", "Phi3ForCausalLM"),
    _text("gemma", "GemmaForCausalLM", head_dim=8),
    _text("gemma2", "Gemma2ForCausalLM", head_dim=8),
    _text("gemma3_text", "Gemma3ForCausalLM", head_dim=8),
    _text(
        "gemma3n_text",
        "Gemma3nForCausalLM",
        head_dim=8,
        intermediate_size=[40, 40],
        vocab_size_per_layer_input=72,
        hidden_size_per_layer_input=6,
        laurel_rank=4,
        altup_num_inputs=2,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention"],
        activation_sparsity_pattern=[0.0, 0.0],
    ),
    _text(
        "gemma4_text",
        "Gemma4ForCausalLM",
        head_dim=8,
        global_head_dim=16,
        vocab_size_per_layer_input=72,
        hidden_size_per_layer_input=6,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention"],
    ),
    Architecture("gpt2", "GPT2LMHeadModel", GPT),
    Architecture("gptj", "GPTJForCausalLM", GPT | {"rotary_dim": 4}),
    Architecture(
        "gpt_neo",
        "GPTNeoForCausalLM",
        {
            "vocab_size": 72,
            "max_position_embeddings": 64,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    _text("gpt_neox", "GPTNeoXForCausalLM"),
    Architecture("gpt_bigcode", "GPTBigCodeForCausalLM", GPT),
    _text("falcon", "FalconForCausalLM", ffn_hidden_size=40),
    Architecture(
        "bloom",
        "BloomForCausalLM",
        {"vocab_size": 72, "hidden_size": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    ),
    _text("opt", "OPTForCausalLM", ffn_dim=40, word_embed_proj_dim=32),
    _text("olmo", "OlmoForCausalLM"),
    _text("olmo2", "Olmo2ForCausalLM"),
    _text("olmo3", "Olmo3ForCausalLM"),
    _text("cohere", "CohereForCausalLM"),
    _text("cohere2", "Cohere2ForCausalLM"),
    _text("glm", "GlmForCausalLM", head_dim=8),
    _text("glm4", "Glm4ForCausalLM", head_dim=8),
    _text("granite", "GraniteForCausalLM"),
    _text("smollm3", "SmolLM3ForCausalLM"),
    _text("starcoder2", "Starcoder2ForCausalLM"),
    _text("stablelm", "StableLmForCausalLM"),
    _text("nemotron", "NemotronForCausalLM"),
    _text("helium", "HeliumForCausalLM", head_dim=8),
    _text("ernie4_5", "Ernie4_5ForCausalLM", head_dim=8),
    _text("exaone4", "Exaone4ForCausalLM"),
    _text("seed_oss", "SeedOssForCausalLM", head_dim=8),
    _text("arcee", "ArceeForCausalLM", head_dim=8),
    Architecture("apertus", "ApertusForCausalLM", TEXT),
    _text("lfm2", "Lfm2ForCausalLM", layer_types=["conv", "full_attention"]),
    Architecture(
        "mpt", "MptForCausalLM", {"vocab_size": 72, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
    ),
    Architecture(
        "xglm",
        "XGLMForCausalLM",
        {
            "vocab_size": 72,
            "d_model": 32,
            "num_layers": 2,
            "attention_heads": 4,
            "ffn_dim": 40,
            "max_position_embeddings": 64,
        },
    ),
    Architecture("codegen", "CodeGenForCausalLM", GPT | {"rotary_dim": 4}),
    _text("persimmon", "PersimmonForCausalLM"),
    Architecture(
        "mamba", "MambaForCausalLM", {"vocab_size": 72, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    ),
    Architecture(
        "mamba2",
        "Mamba2ForCausalLM",
        {
            "vocab_size": 72,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
        },
    ),
    Architecture(
        "falcon_mamba",
        "FalconMambaForCausalLM",
        {"vocab_size": 72, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    ),
    _text("bamba", "BambaForCausalLM", attn_layer_indices=[1], **MAMBA),
    Architecture(
        "zamba2",
        "Zamba2ForCausalLM",
        TEXT
        | {
            "num_hidden_layers": 6,
            "num_mem_blocks": 2,
            "mamba_d_state": 8,
            "n_mamba_heads": 4,
            "mamba_headdim": 16,
            "mamba_ngroups": 1,
            "use_shared_attention_adapter": True,
            "adapter_rank": 4,
            "attention_head_dim": 16,
            "num_key_value_heads": 4,
            "layers_block_type": ["mamba", "hybrid"] * 3,
        },
    ),
    Architecture(
        "rwkv",
        "RwkvForCausalLM",
        {
            "vocab_size": 72,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "attention_hidden_size": 32,
            "intermediate_size": 40,
            "context_length": 32,
        },
    ),
    _text(
        "recurrent_gemma",
        "RecurrentGemmaForCausalLM",
        num_hidden_layers=3,
        lru_width=32,
        num_key_value_heads=1,
        head_dim=8,
    ),
    _text("olmo_hybrid", "OlmoHybridForCausalLM", **LINEAR),
    # Mixtures of experts.
    Architecture("mixtral", "MixtralForCausalLM", LOCAL, dense=False),
    Architecture("phimoe", "PhimoeForCausalLM", LOCAL, dense=False),
    Architecture("minimax_m2", "MiniMaxM2ForCausalLM", LOCAL | {"head_dim": 8}, dense=False),
    Architecture("gpt_oss", "GptOssForCausalLM", LOCAL | {"head_dim": 8}, dense=False),
    Architecture("qwen2_moe", "Qwen2MoeForCausalLM", MOE | {"shared_expert_intermediate_size": 24}, dense=False),
    Architecture("qwen3_moe", "Qwen3MoeForCausalLM", MOE | {"head_dim": 8}, dense=False),
    Architecture(
        "qwen3_next", "Qwen3NextForCausalLM", MOE | LINEAR | {"shared_expert_intermediate_size": 24}, dense=False
    ),
    Architecture("qwen3_5_text", "Qwen3_5ForCausalLM", TEXT | LINEAR),
    Architecture(
        "qwen3_5_moe_text", "Qwen3_5MoeForCausalLM", MOE | LINEAR | {"shared_expert_intermediate_size": 24}, dense=False
    ),
    Architecture("olmoe", "OlmoeForCausalLM", MOE, dense=False),
    Architecture("flex_olmo", "FlexOlmoForCausalLM", MOE, dense=False),
    Architecture("deepseek_v2", "DeepseekV2ForCausalLM", DEEPSEEK, dense=False),
    Architecture("deepseek_v3", "DeepseekV3ForCausalLM", DEEPSEEK, dense=False),
    Architecture("glm4_moe", "Glm4MoeForCausalLM", DEEPSEEK | {"head_dim": 8}, dense=False),
    Architecture("dots1", "Dots1ForCausalLM", DEEPSEEK | {"head_dim": 8}, dense=False),
    Architecture("hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM", MOE | {"head_dim": 8, "moe_topk": 2}, dense=False),
    Architecture(
        "ernie4_5_moe",
        "Ernie4_5_MoeForCausalLM",
        MOE
        | {
            "moe_num_experts": 12,
            "moe_k": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 1,
            "moe_num_shared_experts": 1,
        },
        dense=False,
    ),
    Architecture(
        "jamba",
        "JambaForCausalLM",
        LOCAL
        | {
            "num_experts": 12,
            "attn_layer_offset": 1,
            "attn_layer_period": 2,
            "expert_layer_offset": 1,
            "expert_layer_period": 2,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
        dense=False,
    ),
    Architecture(
        "lfm2_moe",
        "Lfm2MoeForCausalLM",
        MOE | {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
        dense=False,
    ),
    Architecture("granitemoe", "GraniteMoeForCausalLM", LOCAL, dense=False),
    Architecture(
        "granitemoehybrid",
        "GraniteMoeHybridForCausalLM",
        LOCAL | MAMBA | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 24},
        dense=False,
    ),
    Architecture("jetmoe", "JetMoeForCausalLM", LOCAL | {"kv_channels": 8, "num_hidden_layers": 2}, dense=False),
    Architecture(
        "dbrx",
        "DbrxForCausalLM",
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 64,
            "vocab_size": 72,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 20, "moe_num_experts": 12, "moe_top_k": 2},
        },
        dense=False,
    ),
    Architecture(
        "nemotron_h",
        "NemotronHForCausalLM",
        TEXT
        | {
            "layers_block_type": ["mamba", "moe", "attention", "moe"],
            "num_hidden_layers": 4,
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "n_groups": 1,
            "ssm_state_size": 8,
            "n_routed_experts": 12,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "n_group": 1,
            "topk_group": 1,
            "head_dim": 8,
            "moe_shared_expert_intermediate_size": 24,
        },
        dense=False,
    ),
    Architecture(
        "llama4_text",
        "Llama4ForCausalLM",
        LOCAL | {"intermediate_size_mlp": 48, "head_dim": 8, "interleave_moe_layer_step": 1},
        dense=False,
    ),
    Architecture(
        "longcat_flash",
        "LongcatFlashForCausalLM",
        DEEPSEEK
        | {"num_layers": 2, "ffn_hidden_size": 40, "expert_ffn_hidden_size": 20, "moe_topk": 2, "zero_expert_num": 2},
        dense=False,
    ),
    Architecture(
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        {
            "vocab_size": 72,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 40,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "num_experts": 12,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 1,
        },
        dense=False,
    ),
    Architecture(
        "gemma4_text",
        "Gemma4ForCausalLM",
        MOE
        | {
            "head_dim": 8,
            "global_head_dim": 16,
            "vocab_size_per_layer_input": 72,
            "hidden_size_per_layer_input": 6,
            "num_kv_shared_layers": 0,
            "layer_types": ["sliding_attention", "full_attention"],
            "enable_moe_block": True,
            "top_k_experts": 2,
        },
        dense=False,
        variant="_moe",
    ),
    Architecture(
        "kimi_linear",
        "KimiLinearForCausalLM",
        DEEPSEEK
        | {
            "head_dim": 8,
            "num_experts": 12,
            "linear_attn_config": {
                "full_attn_layers": [2],
                "kda_layers": [1],
                "head_dim": 8,
                "num_heads": 4,
                "short_conv_kernel_size": 4,
            },
        },
        dense=False,
    ),
    Architecture(
        "bailing_hybrid",
        "BailingHybridForCausalLM",
        MOE | DEEPSEEK | {"head_dim": 8, "layer_group_size": 2},
        dense=False,
    ),
    Architecture("deepseek_v4", "DeepseekV4ForCausalLM", DEEPSEEK | {"head_dim": 8}, dense=False),
    Architecture("afmoe", "AfmoeForCausalLM", MOE | {"num_dense_layers": 1, "head_dim": 8}, dense=False),
    Architecture("exaone_moe", "ExaoneMoeForCausalLM", MOE | DEEPSEEK | {"head_dim": 8}, dense=False),
    Architecture("minimax", "MiniMaxForCausalLM", LOCAL | {"head_dim": 8}, dense=False),
    Architecture("mistral4", "Mistral4ForCausalLM", DEEPSEEK | {"head_dim": 8, "num_local_experts": 12}, dense=False),
    Architecture("cohere2_moe", "Cohere2MoeForCausalLM", MOE | {"head_dim": 8}, dense=False),
    Architecture("hy_v3", "HYV3ForCausalLM", MOE | {"head_dim": 8}, dense=False),
    Architecture(
        "granitemoeshared", "GraniteMoeSharedForCausalLM", LOCAL | {"shared_intermediate_size": 24}, dense=False
    ),
    Architecture(
        "aria_text",
        "AriaTextForCausalLM",
        TEXT | {"moe_num_experts": 12, "moe_topk": 2, "moe_num_shared_experts": 1},
        dense=False,
    ),
    Architecture("openai_privacy_filter", "OpenAIPrivacyFilterModel", LOCAL | {"head_dim": 8}, dense=False),
    _text("hrm_text", "HrmTextForCausalLM"),
    # Encoders, encoder-decoders, vision and audio.
    Architecture("nomic_bert", "NomicBertForMaskedLM", ENCODER),
    Architecture("bert", "BertForMaskedLM", ENCODER, asked=True),
    Architecture("roberta", "RobertaForMaskedLM", ENCODER, asked=True),
    Architecture(
        "modernbert", "ModernBertForMaskedLM", ENCODER | {"num_hidden_layers": 3, "sep_token_id": 2, "cls_token_id": 1}
    ),
    Architecture(
        "t5",
        "T5ForConditionalGeneration",
        {"vocab_size": 72, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4},
    ),
    Architecture(
        "bart",
        "BartForConditionalGeneration",
        {
            "vocab_size": 72,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 40,
            "decoder_ffn_dim": 40,
            "max_position_embeddings": 64,
        },
        asked=True,
    ),
    Architecture(
        "whisper",
        "WhisperForConditionalGeneration",
        {
            "vocab_size": 72,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 40,
            "decoder_ffn_dim": 40,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        asked=True,
    ),
    Architecture(
        "wav2vec2",
        "Wav2Vec2ForCTC",
        ENCODER
        | {
            "conv_dim": [16, 16],
            "conv_stride": [2, 2],
            "conv_kernel": [3, 3],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
        },
    ),
    Architecture("vit", "ViTForImageClassification", VISION),
    Architecture("siglip_vision_model", "SiglipVisionModel", VISION),
    Architecture("clip", "CLIPModel", {"text_config": ENCODER, "vision_config": VISION, "projection_dim": 20}),
    # Vision and language together.
    Architecture(
        "llava",
        "LlavaForConditionalGeneration",
        {
            "text_config": TEXT | {"model_type": "llama"},
            "vision_config": VISION | {"model_type": "clip_vision_model"},
            "image_token_index": 70,
        },
    ),
    Architecture(
        "gemma3",
        "Gemma3ForConditionalGeneration",
        {"text_config": TEXT | {"head_dim": 8}, "vision_config": VISION, "mm_tokens_per_image": 1},
    ),
    Architecture(
        "mistral3",
        "Mistral3ForConditionalGeneration",
        {"text_config": TEXT | {"model_type": "mistral"}, "vision_config": VISION | {"model_type": "pixtral"}},
    ),
    Architecture(
        "qwen2_vl",
        "Qwen2VLForConditionalGeneration",
        {
            "text_config": TEXT | {"rope_parameters": MROPE, "rope_scaling": MROPE},
            "vision_config": {"depth": 2, "embed_dim": 24, "hidden_size": 32, "num_heads": 3, "mlp_ratio": 2},
        },
    ),
    Architecture(
        "qwen2_5_vl",
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": TEXT | {"rope_parameters": MROPE, "rope_scaling": MROPE},
            "vision_config": QWEN_VISION | {"fullatt_block_indexes": [1]},
        },
    ),
    Architecture(
        "qwen3_vl",
        "Qwen3VLForConditionalGeneration",
        {
            "text_config": TEXT | {"head_dim": 8, "rope_scaling": MROPE},
            "vision_config": QWEN_VISION | {"deepstack_visual_indexes": [0]},
        },
    ),
    Architecture(
        "qwen3_vl_moe",
        "Qwen3VLMoeForConditionalGeneration",
        {
            "text_config": MOE | {"head_dim": 8, "rope_scaling": MROPE},
            "vision_config": QWEN_VISION | {"deepstack_visual_indexes": [0]},
        },
        dense=False,
    ),
    Architecture(
        "qwen3_5", "Qwen3_5ForConditionalGeneration", {"text_config": TEXT | LINEAR, "vision_config": QWEN_VISION}
    ),
    Architecture(
        "qwen3_5_moe",
        "Qwen3_5MoeForConditionalGeneration",
        {"text_config": MOE | LINEAR | {"shared_expert_intermediate_size": 24}, "vision_config": QWEN_VISION},
        dense=False,
    ),
    Architecture(
        "llama4",
        "Llama4ForConditionalGeneration",
        {
            "text_config": LOCAL | {"intermediate_size_mlp": 48, "head_dim": 8, "interleave_moe_layer_step": 1},
            "vision_config": {
                "hidden_size": 24,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "image_size": 28,
                "patch_size": 14,
                "vision_output_dim": 24,
                "projector_input_dim": 24,
                "projector_output_dim": 24,
            },
        },
        dense=False,
    ),
    Architecture(
        "mllama",
        "MllamaForConditionalGeneration",
        {
            "text_config": TEXT
            | {"cross_attention_layers": [1], "rope_scaling": {"rope_type": "default", "rope_theta": 10000.0}},
            "vision_config": {
                "hidden_size": 24,
                "intermediate_size": 36,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 3,
                "image_size": 28,
                "patch_size": 14,
                "vision_output_dim": 72,
                "intermediate_layers_indices": [0, 1],
                "supported_aspect_ratios": [[1, 1]],
                "max_num_tiles": 1,
            },
        },
    ),
    Architecture(
        "idefics3",
        "Idefics3ForConditionalGeneration",
        {"text_config": TEXT | {"model_type": "llama"}, "vision_config": VISION, "scale_factor": 2},
    ),
    Architecture(
        "paligemma",
        "PaliGemmaForConditionalGeneration",
        {
            "text_config": TEXT | {"model_type": "gemma", "head_dim": 8},
            "vision_config": VISION | {"vocab_size": 72},
            "projection_dim": 32,
        },
    ),
    # A dense layer whose gate and up projection are stored apart and held together.
    Architecture(
        "minimax_m3_vl",
        "MiniMaxM3SparseForConditionalGeneration",
        {"text_config": LOCAL | {"head_dim": 8, "moe_layer_freq": [0, 1]}, "vision_config": VISION},
        dense=False,
    ),
    Architecture(
        "ernie4_5_vl_moe",
        "Ernie4_5_VLMoeForConditionalGeneration",
        {
            "text_config": TEXT
            | {
                "moe_num_experts": 12,
                "moe_k": 2,
                "moe_intermediate_size": [20, 12],
                "moe_num_shared_experts": 1,
                "mlp_layer_types": ["dense", "sparse"],
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            },
            "vision_config": {
                "depth": 2,
                "hidden_size": 24,
                "intermediate_size": 36,
                "num_heads": 3,
                "patch_size": 14,
                "spatial_merge_size": 2,
            },
        },
        dense=False,
    ),
    Architecture(
        "molmo2",
        "Molmo2ForConditionalGeneration",
        {
            "text_config": TEXT | {"head_dim": 8, "additional_vocab_size": 8},
            "vit_config": VISION | {"num_key_value_heads": 3, "head_dim": 8, "image_size": [28, 28]},
            "adapter_config": {
                "hidden_size": 24,
                "intermediate_size": 20,
                "text_hidden_size": 32,
                "num_attention_heads": 3,
                "num_key_value_heads": 3,
                "head_dim": 8,
                "vit_layers": [-1],
            },
        },
    ),
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, its headers read."""

    folder: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]

    def array(self, name: str) -> np.ndarray:
        with safe_open(self.folder / self.tensors[name].shard, framework="pt") as shard:
            return shard.get_tensor(name).double().numpy()

    def values(self, matrix: Matrix) -> np.ndarray:
        """The numbers of a matrix."""
        if matrix.pieces:
            return np.concatenate([self.values(piece) for piece in matrix.pieces], axis=matrix.axis)
        array = self.array(matrix.tensor)
        return (array if matrix.view is None else array.reshape(matrix.view))[matrix.index]

    def same(self, first: str, second: str) -> bool:
        return bool(np.array_equal(self.array(first), self.array(second)))


@contextlib.contextmanager
def silenced():
    """Keep transformers' own warnings and progress bars out of the tests, and only these."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    transformers.logging.set_verbosity(verbosity)


def tiny_model(architecture: Architecture) -> torch.nn.Module:
    """A model of an architecture, every parameter filled with numbers of its own."""
    with silenced():
        config = CONFIG_MAPPING[architecture.model_type](**json.loads(json.dumps(architecture.config)))
        torch.manual_seed(7)
        model = getattr(transformers, architecture.model_class)(config)
        with torch.no_grad():
            for parameter in model.parameters():  # some classes leave theirs uninitialised
                parameter.normal_()
    return model


def save(model: torch.nn.Module, folder: Path) -> Checkpoint:
    with silenced():
        model.save_pretrained(folder)
    return read(folder)


def read(folder: Path) -> Checkpoint:
    """A checkpoint's headers and config."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        for name, entry in json.loads(content[8 : 8 + length]).items():
            if name != "__metadata__":
                start, stop = (offset + 8 + length for offset in entry["data_offsets"])
                tensors[name] = Tensor(name, entry["dtype"], tuple(entry["shape"]), file.name, start, stop)
    return Checkpoint(folder, tensors, json.loads((folder / "config.json").read_text()))


def load(checkpoint: Checkpoint, model_class: str) -> torch.nn.Module:
    """The model as a trainer loads it."""
    with silenced():
        return getattr(transformers, model_class).from_pretrained(checkpoint.folder, dtype=torch.float32)


@cache
def available() -> tuple[Architecture, ...]:
    """Those that the installed transformers has."""
    return tuple(architecture for architecture in ARCHITECTURES if architecture.exists)
