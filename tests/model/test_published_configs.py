"""Public configs, typed from memory of their files: read as `transformers` reads them, or refused with the reason."""

import copy

import numpy as np
import pytest
import transformers
from config_files import BASE, LLAMA3
from family_models import SLIDING

from judgelm_jax.errors import InputError
from judgelm_jax.model import config_json
from judgelm_jax.model.layer_pattern import kinds_of
from judgelm_jax.model.rotary import frequencies
from judgelm_jax.notices import say_once

# What the published files hold beside sizes; the sizes are those of BASE.
OLD = {"initializer_range": 0.02, "use_cache": True, "hidden_act": "silu", "torch_dtype": "float16"}


PUBLISHED = {
    "lmsys/vicuna-7b-v1.5": OLD
    | {"_name_or_path": "vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], "pad_token_id": 0, "pretraining_tp": 1}
    | {"rope_scaling": None, "tie_word_embeddings": False, "transformers_version": "4.31.0", "rms_norm_eps": 1e-5},
    "lmsys/vicuna-7b-v1.5-16k": OLD
    | {"max_sequence_length": 1024, "rope_scaling": {"factor": 4.0, "type": "linear"}, "pretraining_tp": 1}
    | {"pad_token_id": 0, "transformers_version": "4.31.0"},
    "lmsys/longchat-7b-16k": OLD
    | {"max_sequence_length": 2048, "rope_condense_ratio": 8, "pad_token_id": 0, "transformers_version": "4.28.1"},
    "decapoda-research/llama-7b-hf": OLD
    | {"architectures": ["LLaMAForCausalLM"], "bos_token_id": 0, "eos_token_id": 1, "max_sequence_length": 2048}
    | {"pad_token_id": -1, "transformers_version": "4.27.0.dev0"},
    "meta-llama/Llama-2-7b-hf": OLD
    | {"architectures": ["LlamaForCausalLM"], "pretraining_tp": 1, "rope_scaling": None, "transformers_version": "4.31.0.dev0"},
    "meta-llama/Llama-3.1-8B-Instruct": OLD
    | {"attention_bias": False, "attention_dropout": 0.0, "eos_token_id": [101, 108, 109], "bos_token_id": 100}
    | {"mlp_bias": False, "num_key_value_heads": 2, "rope_theta": 500000.0, "pretraining_tp": 1}
    | {"rope_scaling": {"rope_type": "llama3", **LLAMA3}, "transformers_version": "4.42.3"},
    "meta-llama/Llama-3.2-1B": OLD
    | {"head_dim": 16, "tie_word_embeddings": True, "rope_theta": 500000.0, "attention_bias": False, "mlp_bias": False}
    | {"rope_scaling": {**LLAMA3, "rope_type": "llama3", "factor": 32.0}, "transformers_version": "4.45.0.dev0"},
    "codellama/CodeLlama-7b-hf": OLD | {"rope_theta": 1000000, "rope_scaling": None, "pretraining_tp": 1},
    "01-ai/Yi-6B": OLD
    | {"attention_bias": False, "num_key_value_heads": 1, "pad_token_id": 0, "rope_scaling": None, "rope_theta": 5000000.0},
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": OLD | {"attention_bias": False, "num_key_value_heads": 1, "rope_scaling": None},
    "HuggingFaceTB/SmolLM2-135M-Instruct": OLD
    | {"is_llama_config": True, "rope_interleaved": False, "rope_theta": 100000, "attention_dropout": 0.0, "pad_token_id": 2}
    | {"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}, "pretraining_tp": 1}
    | {"tie_word_embeddings": True, "rope_scaling": None, "initializer_range": 0.041666666666666664},
    "FlagAlpha/Atom-7B": OLD
    | {"auto_map": {"AutoModelForCausalLM": "model_atom.LlamaForCausalLM"}, "_flash_attn_2_enabled": True, "pretraining_tp": 1}
    | {"max_length": 4096, "rope_scaling": None, "rope_theta": 500000.0},
    "unsloth/Llama-3.2-1B-Instruct": OLD | {"unsloth_fixed": True, "unsloth_version": "2024.9", "head_dim": 16},
    "AtlaAI/Selene-1-Mini-Llama-3.1-8B": OLD
    | {"attention_bias": False, "attention_dropout": 0.0, "eos_token_id": 109, "bos_token_id": 100, "mlp_bias": False}
    | {"num_key_value_heads": 2, "head_dim": 16, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "mistralai/Mistral-7B-v0.1": OLD
    | {"model_type": "mistral", "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 128},
    "mistralai/Mistral-7B-Instruct-v0.2": OLD
    | {"model_type": "mistral", "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0}
    | {"sliding_window": None, "attention_dropout": 0.0, "tie_word_embeddings": False},
    "mistralai/Mistral-7B-Instruct-v0.3": OLD
    | {"model_type": "mistral", "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0}
    | {"sliding_window": None, "attention_dropout": 0.0, "tie_word_embeddings": False, "transformers_version": "4.42.0.dev0"},
    "prometheus-eval/prometheus-7b-v2.0": OLD
    | {"model_type": "mistral", "num_key_value_heads": 2, "rope_theta": 1000000.0, "sliding_window": None, "use_cache": False},
    "Qwen/Qwen2.5-7B-Instruct": OLD
    | {"model_type": "qwen2", "attention_dropout": 0.0, "bos_token_id": 100, "eos_token_id": 101, "max_window_layers": 1}
    | {"num_key_value_heads": 2, "rope_theta": 1000000.0, "sliding_window": 128, "use_sliding_window": False}
    | {"tie_word_embeddings": False},
    "Qwen/Qwen2.5-1.5B-Instruct": OLD
    | {"model_type": "qwen2", "attention_dropout": 0.0, "bos_token_id": 100, "eos_token_id": 101, "max_window_layers": 1}
    | {"num_key_value_heads": 2, "rope_theta": 1000000.0, "sliding_window": 128, "use_sliding_window": False}
    | {"tie_word_embeddings": True},
    "Qwen/Qwen3-8B": OLD
    | {"model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 100, "eos_token_id": 101}
    | {"head_dim": 32, "max_window_layers": 2, "num_key_value_heads": 2, "rope_scaling": None, "rope_theta": 1000000}
    | {"sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": False},
    "google/gemma-2-9b-it": OLD
    | {"model_type": "gemma2", "attention_bias": False, "attn_logit_softcapping": 50.0, "bos_token_id": 2, "eos_token_id": 1}
    | {"cache_implementation": "hybrid", "final_logit_softcapping": 30.0, "head_dim": 32, "num_key_value_heads": 2}
    | {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 32}
    | {"rope_theta": 10000.0, "sliding_window": 128, "sliding_window_size": 128, "pad_token_id": 0},
    "google/gemma-2-27b-it": OLD
    | {"model_type": "gemma2", "attention_bias": False, "attn_logit_softcapping": 50.0, "bos_token_id": 2, "eos_token_id": 1}
    | {"final_logit_softcapping": 30.0, "head_dim": 16, "query_pre_attn_scalar": 18, "num_key_value_heads": 2}
    | {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 128},
    "google/gemma-3-1b-it": {"initializer_range": 0.02, "use_cache": True, "torch_dtype": "bfloat16"}
    | {"model_type": "gemma3_text", "attention_bias": False, "attn_logit_softcapping": None, "bos_token_id": 2}
    | {"cache_implementation": "hybrid", "eos_token_id": [1, 106], "final_logit_softcapping": None, "head_dim": 32}
    | {"hidden_activation": "gelu_pytorch_tanh", "num_hidden_layers": 7, "num_key_value_heads": 1, "pad_token_id": 0}
    | {"query_pre_attn_scalar": 32, "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000}
    | {"sliding_window": 128, "sliding_window_pattern": 6},
}


# What is refused, and why.
NOT_READ = {
    "google/gemma-3-4b-it": ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, "texts and images"),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": ({"model_type": "mixtral", "num_local_experts": 8}, "it has experts"),
    "microsoft/Phi-3-mini-4k-instruct": ({"model_type": "phi3"}, "fused"),
    "google/gemma-7b-it": ({"model_type": "gemma"}, "the first Gemma"),
    "internlm/internlm2_5-7b": ({"model_type": "internlm2", "bias": False}, "known are llama, mistral"),
    "TheBloke/vicuna-7B-v1.5-GPTQ": ({"quantization_config": {"bits": 4, "quant_method": "gptq"}}, "quantization_config"),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_published_configs_that_are_not_read_are_refused_with_the_reason(name):
    values, reason = NOT_READ[name]
    with pytest.raises(InputError, match=reason):
        config_json.from_hf(BASE | OLD | values)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read_as_transformers_reads_them(name, capsys):
    say_once.cache_clear()
    values = BASE | PUBLISHED[name]
    config = config_json.from_hf(values)
    assert ["auto_map" in said for said in capsys.readouterr().err.splitlines()] == [True] * ("auto_map" in values)
    given = {key: value for key, value in values.items() if key not in ("auto_map", "pad_token_id")}
    theirs = transformers.AutoConfig.for_model(**copy.deepcopy(given))
    stated = theirs.rope_parameters.get("full_attention", theirs.rope_parameters)
    assert config.rope_base == stated["rope_theta"]
    kinds = getattr(theirs, "layer_types", None)
    if kinds is not None:
        assert [kind.window for kind in kinds_of(config, 10**6)] == [128 if kind == SLIDING else None for kind in kinds]
    width = getattr(theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads)
    assert (config.head_dim, config.num_kv_heads) == (width, theirs.num_key_value_heads)
    assert config.tied_embeddings == theirs.tie_word_embeddings
    ends = theirs.eos_token_id
    assert config.eos_ids == (tuple(ends) if isinstance(ends, list) else (ends,))
    if "rope_condense_ratio" not in values:  # which transformers does not know
        kind = stated["rope_type"]
        assert kind == ("default" if config.rope_scaling is None else config.rope_scaling.kind)
        if kind != "default":
            expected, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind](theirs, "cpu")
            np.testing.assert_allclose(frequencies(config), expected.numpy(), rtol=1e-6)
