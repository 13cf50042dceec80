"""What the keys of a `config.json` mean to a family: read, without effect, or a feature that we do not have.

A key that changes the model is refused unless the family reads it or its value is the one of a plain LLaMA. A key that nobody
knows is refused if its name speaks of a part of the model, and else named in a notice.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from judgelm_jax.errors import InputError

# What `config_json.from_hf` reads.
_READ = """model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
    head_dim max_position_embeddings max_sequence_length original_max_position_embeddings rms_norm_eps rope_theta rope_scaling
    rope_parameters rope_condense_ratio tie_word_embeddings bos_token_id eos_token_id auto_map"""

# Of libraries, of training, of generation and of other forms of the same model: nothing here changes the logits.
_HARMLESS = """architectures attention_implementation attn_implementation bad_words_ids base_model_pp_plan base_model_tp_plan
    begin_suppress_tokens chunk_size_feed_forward classifier_dropout cls_token_id decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
    ffn_dim_multiplier finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label
    initializer_range is_decoder is_llama_config keys_to_ignore_at_inference label2id length_penalty mask_token_id
    max_length max_seq_len max_seq_length max_window_layers min_length model_max_length multiple_of n_ctx n_positions
    name_or_path no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix pretraining_tp problem_type remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id seq_length suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers.js_config transformers_version typical_p unk_token_id unsloth_fixed unsloth_version use_bfloat16
    use_cache use_flash_attention use_flash_attention_2 use_flash_attn"""
_KNOWN = frozenset(f"{_READ} {_HARMLESS} cache_implementation sliding_window layer_types".split())
_HARMLESS_NAME = re.compile(r"_.*|.*(dropout|pdrop|init_std|init_range|initializer).*")

_OFF = (None, False)
_ON = (None, True)
_ONE = (None, 1)

# Keys that change the model in some published code, with the values of a plain LLaMA.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": _OFF,
    "alibi": _OFF,
    "attention_bias": _OFF,
    "attention_multiplier": (None,),
    "attention_out_bias": _OFF,
    "attention_qkv_bias": _OFF,
    "attn_logit_softcapping": (None,),
    "attn_temperature_tuning": (None, False, 0),
    "causal": _ON,
    "clip_qkv": (None,),
    "cross_attention_hidden_size": (None,),
    "dim_model_base": (None,),
    "embedding_multiplier": _ONE,
    "final_logit_softcapping": (None,),
    "hidden_act": (None, "silu", "swish"),
    "hidden_activation": (None, "silu", "swish"),
    "is_causal": _ON,
    "is_encoder_decoder": _OFF,
    "logit_scale": _ONE,
    "logits_scaling": _ONE,
    "mlp_bias": _OFF,
    "no_bias": _ON,
    "no_rope_layers": (None, []),
    "norm_type": (None, "rms", "rms_norm", "rmsnorm", "RMSNorm"),
    "num_experts": (None, 0),
    "num_experts_per_tok": (None, 0),
    "num_local_experts": (None, 0),
    "partial_rotary_factor": _ONE,
    "pos_emb": (None, "rope"),
    "position_embedding_type": (None, "rope", "rotary"),
    "post_norm": _OFF,
    "pre_norm": _ON,
    "pruned_heads": (None, {}),
    "qk_layernorm": _OFF,
    "qk_norm": _OFF,
    "qkv_bias": _OFF,
    "quantization_config": (None,),
    "query_pre_attn_scalar": (None,),
    "residual_multiplier": _ONE,
    "rope_interleaved": _OFF,
    "rope_local_base_freq": (None,),
    "rope_pct": _ONE,
    "rope_ratio": _ONE,
    "rotary_emb_fraction": _ONE,
    "rotary_interleaved": _OFF,
    "rotary_pct": _ONE,
    "scale_depth": (None,),
    "scale_emb": _ONE,
    "sliding_window_pattern": _ONE,
    "use_alibi": _OFF,
    "use_bias": _OFF,
    "use_bidirectional_attention": _OFF,
    "use_dynamic_ntk": _OFF,
    "use_logn_attn": _OFF,
    "use_parallel_residual": _OFF,
    "use_qk_norm": _OFF,
    "use_rope": _ON,
    "use_sliding_window": _OFF,
}

# Other names of what is read, from other code: the value must be the same.
SAME_AS = {
    **dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "rms_norm_epsilon"), "rms_norm_eps"),
    **dict.fromkeys(("rope_base", "rotary_base", "rotary_emb_base"), "rope_theta"),
    "rotary_dim": "head_dim",
    **dict.fromkeys(("n_layer", "n_layers", "num_layers"), "num_hidden_layers"),
    **dict.fromkeys(("n_head", "n_heads", "num_heads"), "num_attention_heads"),
    **dict.fromkeys(("n_kv_heads", "num_kv_heads"), "num_key_value_heads"),
    **dict.fromkeys(("n_embd", "d_model", "dim"), "hidden_size"),
}

_PART_OF_THE_MODEL = re.compile(
    r"attn|attention|rope|rotary|ntk|yarn|logn|norm|scal|multipl|mup|cap$|capp?ing|bias|window|expert|moe|alibi|position|"
    r"parallel|residual|sparse|activation|(^|_)act(_|$)|mlp|ffn|gat(e|ing)|emb|head|layer|lora|adapter|bit"
)
_ESSENTIAL = re.compile(r"((use|apply|enable|with)_)?(rope|rotary|rms|norm|pre_?norm|causal|attn|attention|mlp|gate|residual)")


def check_keys(values: Mapping[str, Any], family: str, reads: Collection[str]) -> list[str]:
    """Refuses the first key that makes another model of it; returns the keys that nobody knows.

    Args:
      reads: the keys beside those of a LLaMA that say something to the family.

    Raises:
      InputError: names the key, its value, and what would be supported.
    """
    kinds = values.get("layer_types")
    window = values.get("sliding_window") if values.get("use_sliding_window") is not False else None
    if "sliding_window" not in reads and window is not None:
        _refuse("sliding_window", window, family, (None,))
    plain = kinds is None or (isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds))
    if "layer_types" not in reads and not plain:
        _refuse("layer_types", kinds, family, (None, "full_attention for each layer"))
    unknown = []
    for key, value in values.items():
        if key in reads:
            continue
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                _refuse(key, value, family, _NEUTRAL[key])
        elif key not in _KNOWN and key not in SAME_AS and not _HARMLESS_NAME.fullmatch(key):
            if _may_change_the_model(key, value):
                raise InputError(
                    f"{shown(key)} is {shown(value)}; this key is not known and its name speaks of a part of the model; "
                    "remove it from the config if it changes nothing"
                )
            unknown.append(key)
    return unknown


def shown(value: Any) -> str:
    """A value as a message shows it: short, whatever it is."""
    text = repr(value) if not isinstance(value, str) or len(value) < 80 else repr(value[:80])
    return text if len(text) <= 120 else f"{text[:120]}…"


def _may_change_the_model(key: str, value: Any) -> bool:
    if not _PART_OF_THE_MODEL.search(key.lower()):
        return False
    off = value is None or value is False or value in ("", [], {})
    return not off or (value is False and _ESSENTIAL.match(key.lower()) is not None)


def _refuse(key: str, value: Any, family: str, known: tuple[Any, ...]) -> None:
    values = ", ".join("null" if value is None else shown(value) for value in known)
    raise InputError(f"{key} is {shown(value)}; this feature is not supported with model_type {family!r}, known is {values}")
