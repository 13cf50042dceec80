"""Families as rows of a table: what is read, written, and refused by name."""

import json

import numpy as np
import pytest
import transformers
from config_files import BASE, LLAMA3
from family_models import CASES, FULL, SIZES, SLIDING

from judgelm_jax.errors import InputError
from judgelm_jax.model import config_json
from judgelm_jax.model.families import FAMILIES
from judgelm_jax.model.layer_pattern import kinds_of
from judgelm_jax.model.rotary import frequencies
from judgelm_jax.notices import say_once


def test_what_transformers_writes_is_read(tmp_path):
    written = transformers.LlamaConfig(
        vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        rope_parameters={"rope_type": "linear", "rope_theta": 7000.0, "factor": 3.0}, rms_norm_eps=3e-5, eos_token_id=[2, 7],
    )  # fmt: skip
    written.save_pretrained(tmp_path)
    config, _ = config_json.read_hf_config(tmp_path / "config.json")
    assert (config.num_kv_heads, config.head_dim, config.norm_epsilon, config.rope_base) == (2, 8, 3e-5, 7000.0)
    assert config.rope_scaling.factor == 3.0
    assert config.eos_ids == (2, 7)


def test_what_is_written_is_read_by_transformers_and_by_ourselves():
    config = config_json.from_hf(BASE | {"rope_theta": 9e4, "rope_scaling": {"rope_type": "llama3", **LLAMA3}})
    values = config_json.to_hf(config, "float32")
    assert config_json.from_hf(values) == config
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
        config_json.read_hf_config(path)
    assert str(path) in str(error.value)


def test_a_window_that_is_switched_off_changes_nothing():
    assert config_json.from_hf(BASE | {"sliding_window": 4096, "use_sliding_window": False}) == config_json.from_hf(BASE)


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
        config_json.read_hf_config(path)


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
        config_json.from_hf(BASE | {"model_type": family, key: value})
    assert str(error.value).startswith(key)


def test_an_unknown_family_is_told_which_are_known():
    for name in ("bert", "gemma3", 7):
        with pytest.raises(InputError, match="known are llama, mistral, qwen2, qwen3, gemma2, gemma3_text"):
            config_json.from_hf(BASE | {"model_type": name})


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
        config_json.from_hf(BASE | {"model_type": family} | change)


@pytest.mark.parametrize("case", CASES)
def test_what_transformers_writes_of_a_family_is_read_and_what_is_written_means_the_same(case, tmp_path):
    name, changes = CASES[case]
    theirs = getattr(transformers, f"{name}{'Text' if name == 'Gemma3' else ''}Config")(**SIZES | changes)
    theirs.save_pretrained(tmp_path)
    config, _ = config_json.read_hf_config(tmp_path / "config.json")
    written = config_json.to_hf(config, "float32")
    assert config_json.from_hf(written) == config
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


@pytest.mark.parametrize("key", ["sliding_window", "max_window_layers"])
def test_a_window_that_is_switched_off_is_none(key):
    assert config_json.from_hf(BASE | {key: 4096, "use_sliding_window": False} | {"head_dim": None}) == config_json.from_hf(
        BASE
    )


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
        assert config_json.from_hf(BASE | change) == config_json.from_hf(BASE)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


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
        config_json.read_hf_config(path)
    assert len(str(error.value)) < 500
