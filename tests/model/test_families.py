import copy
import json

import numpy as np
import pytest
import transformers
from family_models import CASES, FULL, SIZES, SLIDING

from judgelm_jax.errors import InputError
from judgelm_jax.model import families
from judgelm_jax.model.family_table import FAMILIES
from judgelm_jax.model.pattern import kinds_of
from judgelm_jax.model.rotary import frequencies
from judgelm_jax.notices import say_once

BASE = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_old_and_new_form_of_rotary_settings_mean_the_same():
    old = BASE | {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}}
    new = BASE | {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3}}
    assert families.from_hf(old) == families.from_hf(new)
    assert families.from_hf(old).rope_scaling.factor == 8.0
    oldest = BASE | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    assert families.from_hf(oldest).rope_scaling.kind == "linear"


def test_what_transformers_writes_is_read(tmp_path):
    written = transformers.LlamaConfig(
        vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        rope_parameters={"rope_type": "linear", "rope_theta": 7000.0, "factor": 3.0}, rms_norm_eps=3e-5, eos_token_id=[2, 7],
    )  # fmt: skip
    written.save_pretrained(tmp_path)
    config, _ = families.read_hf_config(tmp_path / "config.json")
    assert (config.num_kv_heads, config.head_dim, config.norm_epsilon, config.rope_base) == (2, 8, 3e-5, 7000.0)
    assert config.rope_scaling.factor == 3.0
    assert config.eos_ids == (2, 7)


def test_what_is_written_is_read_by_transformers_and_by_ourselves():
    config = families.from_hf(BASE | {"rope_theta": 9e4, "rope_scaling": {"rope_type": "llama3", **LLAMA3}})
    values = families.to_hf(config, "float32")
    assert families.from_hf(values) == config
    theirs = transformers.LlamaConfig(**values)
    assert theirs.rope_parameters["rope_theta"] == 9e4
    assert theirs.rope_parameters["factor"] == 8.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "mixtral"),
        ("model_type", None),
        ("model_type", ["llama"]),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("hidden_act", "gelu"),
        ("quantization_config", {"quant_method": "gptq"}),
        ("sliding_window", 4096),
        ("use_sliding_window", True),
        ("partial_rotary_factor", 0.5),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 4.0}),
        ("rope_scaling", {"rope_type": "proportional", "factor": 4.0}),
        ("sliding_window_pattern", 6),
        ("rope_local_base_freq", 1e4),
        ("query_pre_attn_scalar", 256),
        ("attn_logit_softcapping", 50.0),
        ("use_bidirectional_attention", True),
        ("rope_ratio", 4),
        ("use_logn_attn", True),
        ("use_dynamic_ntk", True),
        ("scale_emb", 12),
        ("scale_depth", 1.4),
        ("dim_model_base", 256),
        ("qkv_bias", True),
        ("attention_out_bias", True),
        ("rotary_pct", 0.25),
        ("rope_interleaved", True),
        ("final_logit_softcapping", 30.0),
        ("num_experts", 8),
        ("norm_type", "layernorm"),
        ("use_rope", False),
        # of names that nobody knows, those that speak of a part of the model
        ("my_attention_gain", 2.0),
        ("rope_wobble", 1),
        ("embedding_factor", 3),
        ("use_rotary", False),
    ],
)
def test_a_feature_that_is_not_supported_is_refused_by_name(tmp_path, key, value):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(BASE | {key: value}))
    with pytest.raises(InputError, match=key) as error:
        families.read_hf_config(path)
    assert str(path) in str(error.value)


def test_a_window_that_is_switched_off_changes_nothing():
    assert families.from_hf(BASE | {"sliding_window": 4096, "use_sliding_window": False}) == families.from_hf(BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": None},
        {"hidden_size": "64"},
        {"num_key_value_heads": 3},
        {"num_attention_heads": 0},
        {"rms_norm_eps": 0},
        {"num_key_value_heads": 0},
        {"num_key_value_heads": True},
        {"head_dim": 0},
        {"head_dim": 15},
        {"hidden_size": 66},
        {"hidden_size": 64.0},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 10**100},
        {"vocab_size": 10**12},
        {"max_position_embeddings": 10**12},
        {"max_position_embeddings": 0},
        {"max_sequence_length": "2048"},
        {"rms_norm_eps": "1e-6"},
        {"rms_norm_eps": 1e300},
        {"rms_norm_eps": -1e-6},
        {"tie_word_embeddings": "false"},
        {"bos_token_id": "<s>"},
        {"eos_token_id": ["a"]},
        {"eos_token_id": True},
        {"eos_token_id": [2, False]},
        {"eos_token_id": 2.0},
        {"eos_token_id": {"id": 2}},
        {"eos_token_id": 512},
        {"eos_token_id": -1},
        {"rope_theta": 0},
        {"rope_theta": "10000"},
        {"rope_theta": True},
        {"rope_theta": 1e300},
        {"layer_types": 3},
        {"layer_types": [{}]},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_scaling": "linear"},
        {"rope_scaling": [1]},
        {"rope_scaling": {"type": ["linear"], "factor": 2.0}},
        {"rope_scaling": {"type": "linear"}},
        {"rope_scaling": {"factor": 2.0}},
        {"rope_scaling": {"type": "default", "factor": 2.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0, "attention_factor": 0.5}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"rope_condense_ratio": 0},
        {"rope_condense_ratio": "8"},
    ],
)
def test_a_wrong_value_is_an_error_without_traceback(tmp_path, change):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(BASE | change))
    with pytest.raises(InputError, match=r"config\.json"):
        families.read_hf_config(path)


@pytest.mark.parametrize("factor", [0, -1, "2", True, None, 1e-9, 1e300, 10**400, float("inf"), float("nan")])
@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": {"rope_type": "linear"}},
        {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, **LLAMA3}},
    ],
)
def test_a_rotary_factor_that_is_none_is_refused(config, factor):
    ((key, scaling),) = config.items()
    with pytest.raises(InputError, match="factor"):
        families.from_hf(BASE | {key: scaling | {"factor": factor}})


@pytest.mark.parametrize(
    ("low", "high"), [(4.0, 1.0), (2.0, 2.0), (0, 4.0), (-1, 4.0), (1.0, float("nan")), (1.0, float("inf"))]
)
def test_frequency_factors_that_leave_no_passage_are_refused(low, high):
    scaling = {"rope_type": "llama3", **LLAMA3, "low_freq_factor": low, "high_freq_factor": high}
    with pytest.raises(InputError, match="freq_factor"):
        families.from_hf(BASE | {"rope_scaling": scaling})


@pytest.mark.parametrize("original", [0, -1, 8192.5, "8192", True])
def test_an_original_context_that_is_none_is_refused(original):
    scaling = {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": original}
    with pytest.raises(InputError, match="original_max_position_embeddings"):
        families.from_hf(BASE | {"rope_scaling": scaling})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("key", "value", "known"),
    [
        ("mlp_bias", True, "known is null, False"),
        ("attention_bias", True, "known is null, False"),
        ("num_experts", 8, "known is null, 0"),
        ("quantization_config", {"quant_method": "awq"}, "known is null"),
        ("use_qk_norm", True, "known is null, False"),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 4.0}, "supported are default, linear, llama3, yarn, longrope"),
    ],
)
def test_every_family_refuses_what_it_does_not_have_and_says_what_is_known(family, key, value, known):
    with pytest.raises(InputError, match=known) as error:
        families.from_hf(BASE | {"model_type": family, key: value})
    assert str(error.value).startswith(key)


def test_an_unknown_family_is_told_which_are_known():
    for name in ("bert", "gemma3", 7):
        with pytest.raises(InputError, match="known are llama, mistral, qwen2, qwen3, gemma2, gemma3_text"):
            families.from_hf(BASE | {"model_type": name})


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("mistral", {"sliding_window": 0}, "sliding_window"),
        ("mistral", {"sliding_window": "4096"}, "sliding_window"),
        ("mistral", {"hidden_act": "gelu"}, "hidden_act"),
        ("qwen2", {"use_sliding_window": "true"}, "use_sliding_window"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers"),
        ("qwen2", {"layer_types": ["full_attention"]}, "for each of 2 layers"),
        ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention"),
        ("qwen3", {"query_pre_attn_scalar": 4}, "query_pre_attn_scalar"),
        ("gemma2", {"hidden_activation": "silu"}, "hidden_activation is 'silu'; with model_type 'gemma2', gelu_pytorch_tanh"),
        ("gemma2", {"attn_logit_softcapping": 0}, "attn_logit_softcapping"),
        ("gemma2", {"final_logit_softcapping": "30"}, "final_logit_softcapping"),
        ("gemma2", {"query_pre_attn_scalar": -1}, "query_pre_attn_scalar"),
        ("gemma2", {"sliding_window_size": 77}, "sliding_window_size and sliding_window disagree"),
        ("gemma2", {"rope_local_base_freq": 1e4}, "rope_local_base_freq"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
        ("gemma3_text", {"rope_local_base_freq": 0}, "rope_base"),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}, "full_attention": {}}},
            "rope_parameters.sliding_attention scales",
        ),
        (
            "gemma3_text",
            {"rope_local_base_freq": 2e4, "rope_parameters": {"sliding_attention": {"rope_theta": 1e4}}},
            "rope_local_base_freq and rope_parameters.sliding_attention.rope_theta disagree",
        ),
        ("gemma3_text", {"rope_parameters": {"full_attention": {}, "rope_theta": 1e4}}, "rope_parameters.rope_theta stands"),
    ],
)
def test_a_wrong_value_of_a_family_is_refused_by_name(family, change, said):
    with pytest.raises(InputError, match=said):
        families.from_hf(BASE | {"model_type": family} | change)


@pytest.mark.parametrize("case", CASES)
def test_what_transformers_writes_of_a_family_is_read_and_what_is_written_means_the_same(case, tmp_path):
    name, changes = CASES[case]
    theirs = getattr(transformers, f"{name}{'Text' if name == 'Gemma3' else ''}Config")(**SIZES | changes)
    theirs.save_pretrained(tmp_path)
    config, _ = families.read_hf_config(tmp_path / "config.json")
    written = families.to_hf(config, "float32")
    assert families.from_hf(written) == config
    again = type(theirs)(**written)
    kinds = getattr(theirs, "layer_types", None) or ["sliding_attention" if getattr(theirs, "sliding_window", 0) else FULL] * 4
    windows = [theirs.sliding_window if kind == SLIDING else None for kind in kinds]
    assert [kind.window for kind in kinds_of(config, 99)] == windows
    for read in (theirs, again):
        for kind, layer in zip(kinds, kinds_of(config, 99), strict=True):
            nested = kind if kind in read.rope_parameters else None
            stated = read.rope_parameters[kind] if nested else read.rope_parameters
            init = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS.get(stated["rope_type"])
            base = stated["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
            expected = base if init is None else init(read, "cpu", layer_type=nested)[0].numpy()
            np.testing.assert_allclose(frequencies(config, layer), expected, rtol=2e-6)


SHORT, LONG = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


@pytest.mark.parametrize(
    ("scaling", "context", "length"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256, 1),
        ({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "truncate": False}, 512, 1),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8.0, "beta_slow": 0.5},
            256,
            1,
        ),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.5}, 256, 1),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 0.7, "mscale_all_dim": 1.2},
            256,
            1,
        ),
        ({"rope_type": "yarn", "factor": 4.0}, 1024, 1),
        ({"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64}, 256, 65),
        ({"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 256}, 256, 64),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, 256, 65),
        ({"rope_type": "longrope", "factor": 2.0, "attention_factor": 1.25, "original_max_position_embeddings": 64}, 256, 65),
    ],
)
def test_stretched_positions_are_those_of_transformers(scaling, context, length):
    if scaling["rope_type"] == "longrope":
        scaling = scaling | {"short_factor": SHORT, "long_factor": LONG}
    config = families.from_hf(BASE | {"rope_scaling": scaling})
    theirs = transformers.LlamaConfig(**BASE, rope_parameters=scaling | {"rope_theta": 1e4})
    init = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[scaling["rope_type"]]
    expected, factor = init(theirs, "cpu", seq_len=length)
    np.testing.assert_allclose(frequencies(config), expected.numpy(), rtol=2e-6)
    assert config.rope_scaling.attention_factor == pytest.approx(factor)
    assert config.context == context
    assert families.from_hf(families.to_hf(config, "float32")) == config


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        ({"rope_type": "yarn"}, "factor is missing"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_fast": 1.0, "beta_slow": 2.0}, "beta_slow"),
        ({"rope_type": "yarn", "factor": 4.0, "truncate": "no"}, "truncate"),
        ({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1.0}, "rope_base"),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 0}, "factor"),
        ({"rope_type": "yarn", "factor": 4.0, "long_factor": LONG}, "long_factor"),
        ({"rope_type": "longrope", "factor": 4.0, "long_factor": LONG}, "short_factor is missing"),
        ({"rope_type": "longrope", "factor": 4.0, "long_factor": LONG, "short_factor": SHORT[:-1]}, "7 short_factors"),
        ({"rope_type": "longrope", "factor": 4.0, "long_factor": LONG, "short_factor": "1"}, "list of numbers"),
        ({"rope_type": "longrope", "factor": 4.0, "long_factor": [*LONG[:-1], 0], "short_factor": SHORT}, "factor"),
        ({"rope_type": "longrope", "factor": 4.0, "long_factor": [*LONG[:-1], None], "short_factor": SHORT}, "finite number"),
    ],
)
def test_a_wrong_stretching_is_refused_by_name(scaling, said):
    with pytest.raises(InputError, match=said):
        families.from_hf(BASE | {"rope_scaling": scaling})


LINEAR = {"type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    ("change", "first", "second"),
    [
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, "rope_theta", "rope_parameters.rope_theta"),
        ({"rope_scaling": LINEAR, "rope_parameters": {"rope_theta": 1e4}}, "rope_scaling", "rope_parameters"),
        (
            {"rope_scaling": LINEAR, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "rope_scaling",
            "rope_parameters",
        ),
        (
            {"rope_scaling": {"rope_type": "llama3", **LLAMA3}, "rope_parameters": {"rope_type": "linear", "factor": 8.0}},
            "rope_scaling",
            "rope_parameters",
        ),
        ({"rope_scaling": LINEAR | {"rope_type": "llama3"}}, "rope_scaling.rope_type", "rope_scaling.type"),
        ({"rope_scaling": LINEAR, "rope_condense_ratio": 8}, "rope_scaling", "rope_condense_ratio"),
        ({"rope_parameters": {"rope_theta": 1e4}, "rope_condense_ratio": 8}, "rope_parameters", "rope_condense_ratio"),
        ({"rotary_emb_base": 5e5}, "rotary_emb_base", "rope_theta"),
        ({"rotary_dim": 8}, "rotary_dim", "head_dim"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps", "rms_norm_eps"),
        ({"n_layer": 3}, "n_layer", "num_hidden_layers"),
    ],
)
def test_two_keys_that_disagree_are_refused_naming_both(change, first, second):
    with pytest.raises(InputError) as error:
        families.from_hf(BASE | change)
    assert f"{first} " in str(error.value)
    assert f"{second} " in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": 1e4, "rope_scaling": LINEAR, "rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 1e4}},
        {"rope_scaling": LINEAR, "rope_parameters": {}},
        {"rope_scaling": None, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        {"rope_scaling": LINEAR | {"rope_type": "linear"}},
        {"rope_scaling": LINEAR, "rope_condense_ratio": 4},
        {"rope_condense_ratio": 4},
        {"rope_condense_ratio": 4, "rope_scaling": None},
    ],
)
def test_two_keys_that_say_the_same_are_read(change):
    assert families.from_hf(BASE | change) == families.from_hf(BASE | {"rope_scaling": LINEAR})


def test_a_condensed_model_divides_its_positions_as_linear_scaling_does_in_transformers():
    config = families.from_hf(BASE | {"rope_condense_ratio": 8})
    theirs = transformers.LlamaConfig(**BASE, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0})
    expected, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["linear"](theirs, "cpu")
    np.testing.assert_allclose(frequencies(config), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "context", "guessed"),
    [
        ({}, 256, False),
        ({"max_position_embeddings": None}, 2048, True),
        ({"max_position_embeddings": None, "max_sequence_length": 128}, 128, False),
        ({"rope_scaling": LINEAR}, 1024, True),
        ({"rope_scaling": LINEAR, "max_sequence_length": 640}, 640, False),
        ({"rope_scaling": LINEAR | {"original_max_position_embeddings": 128}}, 512, False),
        ({"rope_scaling": LINEAR, "original_max_position_embeddings": 128}, 512, False),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "original_max_position_embeddings": 64}}, 256, False),
        ({"rope_scaling": LINEAR | {"factor": 1.0}}, 256, False),
        ({"rope_condense_ratio": 8}, 2048, True),
        ({"rope_condense_ratio": 8, "max_sequence_length": 2000}, 2000, False),
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3}}, 256, False),
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3}, "max_sequence_length": 100}, 100, False),
    ],
)
def test_the_context_is_the_one_that_was_meant(change, context, guessed):
    assert families.from_hf(BASE | change).context == context
    guess = families.guessed_context(BASE | change)
    assert guessed == (guess is not None and str(context) in guess)
    assert families.guessed_context(families.with_context(BASE | change, 77)) is None
    assert families.from_hf(families.with_context(BASE | change, 77)).context == 77


def test_what_is_written_of_a_linear_model_keeps_its_context():
    config = families.from_hf(BASE | {"rope_scaling": LINEAR})
    assert families.from_hf(families.to_hf(config, "float32")) == config


@pytest.mark.parametrize("key", ["sliding_window", "max_window_layers"])
def test_a_window_that_is_switched_off_is_none(key):
    assert families.from_hf(BASE | {key: 4096, "use_sliding_window": False} | {"head_dim": None}) == families.from_hf(BASE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Custom"}}, "auto_map"),
        ({"favourite_colour": "blue", "mm_projector_lr": None}, "favourite_colour, mm_projector_lr"),
    ],
)
def test_what_has_no_effect_is_said_once(change, said, capsys):
    say_once.cache_clear()
    for _ in range(2):
        assert families.from_hf(BASE | change) == families.from_hf(BASE)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


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
        families.from_hf(BASE | OLD | values)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read_as_transformers_reads_them(name, capsys):
    say_once.cache_clear()
    values = BASE | PUBLISHED[name]
    config = families.from_hf(values)
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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"b": {"a": 1, "a": 1}}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"a": ' * 100_000,
        b"\xef\xbb\xbf" + json.dumps(BASE).encode(),
        json.dumps(BASE).encode("utf-16"),
        json.dumps(BASE).encode("utf-32"),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^\S*config\.json.*: [^\n]*$") as error:
        families.read_hf_config(path)
    assert len(str(error.value)) < 500
