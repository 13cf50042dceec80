import copy
import json

import numpy as np
import pytest
import transformers

from judgelm_jax.errors import InputError
from judgelm_jax.model import families
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
        ("model_type", "mistral"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("hidden_act", "gelu"),
        ("quantization_config", {"quant_method": "gptq"}),
        ("sliding_window", 4096),
        ("use_sliding_window", True),
        ("partial_rotary_factor", 0.5),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 4.0}),
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
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read_as_transformers_reads_them(name, capsys):
    say_once.cache_clear()
    values = BASE | PUBLISHED[name]
    config = families.from_hf(values)
    assert ["auto_map" in said for said in capsys.readouterr().err.splitlines()] == [True] * ("auto_map" in values)
    given = {key: value for key, value in values.items() if key not in ("auto_map", "pad_token_id")}
    theirs = transformers.LlamaConfig(**copy.deepcopy(given))
    assert config.rope_base == theirs.rope_parameters["rope_theta"]
    assert (config.head_dim, config.num_kv_heads) == (theirs.head_dim, theirs.num_key_value_heads)
    assert config.tied_embeddings == theirs.tie_word_embeddings
    ends = theirs.eos_token_id
    assert config.eos_ids == (tuple(ends) if isinstance(ends, list) else (ends,))
    if "rope_condense_ratio" not in values:  # which transformers does not know
        kind = theirs.rope_parameters["rope_type"]
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
