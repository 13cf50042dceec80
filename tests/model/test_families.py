import json

import pytest
import transformers

from judgelm_jax.errors import InputError
from judgelm_jax.model import families

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
        ("partial_rotary_factor", 0.5),
        ("auto_map", {"AutoModelForCausalLM": "modeling.Custom"}),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 4.0}),
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
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_scaling": "linear"},
    ],
)
def test_a_wrong_value_is_an_error_without_traceback(tmp_path, change):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(BASE | change))
    with pytest.raises(InputError, match=r"config\.json"):
        families.read_hf_config(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff"])
def test_a_broken_file_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"config\.json"):
        families.read_hf_config(path)
