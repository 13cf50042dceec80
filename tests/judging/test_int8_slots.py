"""Responses over an int8 cache: against Hugging Face with a cache that is rounded by hand, and on a mesh."""

import jax
import pytest
import torch
import transformers

from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig

from .test_engine import NEW, make_engine, random_prompts, responses

INT8 = {"mode": "explain", "max_new_tokens": NEW, "cache_dtype": "int8"}


@pytest.fixture(scope="module")
def prompts():
    return random_prompts(6)


@pytest.fixture(scope="module")
def found(laboratory_checkpoint, one_device, prompts):
    return responses(make_engine(laboratory_checkpoint, one_device, batch_size=4, **INT8), prompts)


def rounded(vectors):
    """What int8 stands for of float32 vectors [..., D], by hand."""
    steps = vectors.double().abs().amax(dim=-1, keepdim=True) / 127
    return (torch.round(vectors.double() / steps) * steps).float()


class RoundedCache(transformers.DynamicCache):
    """Holds rounded keys and values. The prompt's tokens see each other as they are; what is generated sees what is held."""

    def update(self, key_states, value_states, layer_idx, *more, **named):
        first = self.get_seq_length(layer_idx) == 0
        held = super().update(rounded(key_states), rounded(value_states), layer_idx, *more, **named)
        return (key_states, value_states) if first else held


def test_responses_equal_hugging_face_with_a_cache_rounded_by_hand(laboratory_checkpoint, found, prompts):
    model = transformers.AutoModelForCausalLM.from_pretrained(laboratory_checkpoint, dtype=torch.float32).eval()
    changed = 0
    for prompt in prompts:
        texts = []
        for cache in (RoundedCache(), transformers.DynamicCache()):
            ids = torch.tensor([prompt.ids.tolist()])
            with torch.no_grad():
                out = model.generate(
                    ids, attention_mask=torch.ones_like(ids), cache=cache, do_sample=False, max_new_tokens=NEW,
                    eos_token_id=2, pad_token_id=0,
                )  # fmt: skip
            texts.append(out[0, ids.shape[1] :].tolist())
        assert found[prompt.index] == (texts[0], "length")
        changed += texts[0] != texts[1]
    assert changed  # int8 is not what was there


def test_a_mesh_responds_as_one_device(laboratory_checkpoint, found, prompts):
    mesh = make_mesh(MeshConfig.parse("data:2,fsdp:2,tensor:2"))
    assert responses(make_engine(laboratory_checkpoint, mesh, batch_size=4, **INT8), prompts) == found


def test_the_slots_hold_int8_and_more_of_them_fit(laboratory_checkpoint, one_device):
    many, slots, held = random_prompts(200), {}, {}
    for cache_dtype in (None, "int8"):
        engine = make_engine(laboratory_checkpoint, one_device, device_memory=0.01, **INT8 | {"cache_dtype": cache_dtype})
        size = next(engine.decoding_sizes(many))
        state = engine.programs._state_shapes(size.slots, size.context)
        slots[cache_dtype] = size.slots
        held[cache_dtype] = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state["cache"])) / size.slots
        assert {str(x.dtype) for x in state["cache"]["k"]} == {cache_dtype or "float32"}
    width = engine.config.head_dim
    assert held["int8"] / held[None] == (width + 4) / (4 * width)
    assert slots["int8"] >= 2 * slots[None]


@pytest.mark.parametrize("mode", ["scores", "distribution"])
def test_modes_that_generate_nothing_refuse_it(mode):
    with pytest.raises(InputError, match=f"cache_dtype=int8 is for the mode explain, and the mode is {mode}; leave it out"):
        JudgeConfig(mode=mode, cache_dtype="int8")
    with pytest.raises(InputError, match="cache_dtype is 'int4'; it must be one of int8"):
        JudgeConfig(mode="explain", cache_dtype="int4")
