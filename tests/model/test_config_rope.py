"""Rotary settings of a config.json: forms that must agree, stretched positions, the context that is meant."""

import numpy as np
import pytest
import transformers
from config_files import BASE, LLAMA3

from judgelm_jax.errors import InputError
from judgelm_jax.model import config_json
from judgelm_jax.model.rotary import frequencies


def test_old_and_new_form_of_rotary_settings_mean_the_same():
    old = BASE | {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}}
    new = BASE | {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3}}
    assert config_json.from_hf(old) == config_json.from_hf(new)
    assert config_json.from_hf(old).rope_scaling.factor == 8.0
    oldest = BASE | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    assert config_json.from_hf(oldest).rope_scaling.kind == "linear"


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
        config_json.from_hf(BASE | {key: scaling | {"factor": factor}})


@pytest.mark.parametrize(
    ("low", "high"), [(4.0, 1.0), (2.0, 2.0), (0, 4.0), (-1, 4.0), (1.0, float("nan")), (1.0, float("inf"))]
)
def test_frequency_factors_that_leave_no_passage_are_refused(low, high):
    scaling = {"rope_type": "llama3", **LLAMA3, "low_freq_factor": low, "high_freq_factor": high}
    with pytest.raises(InputError, match="freq_factor"):
        config_json.from_hf(BASE | {"rope_scaling": scaling})


@pytest.mark.parametrize("original", [0, -1, 8192.5, "8192", True])
def test_an_original_context_that_is_none_is_refused(original):
    scaling = {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": original}
    with pytest.raises(InputError, match="original_max_position_embeddings"):
        config_json.from_hf(BASE | {"rope_scaling": scaling})


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
    config = config_json.from_hf(BASE | {"rope_scaling": scaling})
    theirs = transformers.LlamaConfig(**BASE, rope_parameters=scaling | {"rope_theta": 1e4})
    init = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[scaling["rope_type"]]
    expected, factor = init(theirs, "cpu", seq_len=length)
    np.testing.assert_allclose(frequencies(config), expected.numpy(), rtol=2e-6)
    assert config.rope_scaling.attention_factor == pytest.approx(factor)
    assert config.context == context
    assert config_json.from_hf(config_json.to_hf(config, "float32")) == config


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
        config_json.from_hf(BASE | {"rope_scaling": scaling})


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
        config_json.from_hf(BASE | change)
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
    assert config_json.from_hf(BASE | change) == config_json.from_hf(BASE | {"rope_scaling": LINEAR})


def test_a_condensed_model_divides_its_positions_as_linear_scaling_does_in_transformers():
    config = config_json.from_hf(BASE | {"rope_condense_ratio": 8})
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
    assert config_json.from_hf(BASE | change).context == context
    guess = config_json.guessed_context(BASE | change)
    assert guessed == (guess is not None and str(context) in guess)
    assert config_json.guessed_context(config_json.with_context(BASE | change, 77)) is None
    assert config_json.from_hf(config_json.with_context(BASE | change, 77)).context == 77


def test_what_is_written_of_a_linear_model_keeps_its_context():
    config = config_json.from_hf(BASE | {"rope_scaling": LINEAR})
    assert config_json.from_hf(config_json.to_hf(config, "float32")) == config
