"""Gradients computed in bfloat16 against those in float32, on rows whose tokens repeat as those of real prompts do."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from judgelm_jax import laboratory
from judgelm_jax.data.pipeline import batches, plan
from judgelm_jax.data.training_file import check_training_file
from judgelm_jax.model import lora, parameters
from judgelm_jax.records.json_lines import dump_line
from judgelm_jax.tokens.tokenization import load_tokenizer
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.step import init_state, make_step, state_shardings
from judgelm_jax.training_config import DataConfig, LoraConfig, RecipeConfig

from .conftest import MODEL, make_program

ROWS, LENGTH = 128, 128
FREQUENT = 8
ADAPTERS = LoraConfig(rank=4, targets=("q_proj", "down_proj"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """128 packed rows of judge prompts, as training reads them, and the size of their vocabulary."""
    folder = tmp_path_factory.mktemp("rows")
    laboratory.write_tokenizer(folder, sentences=True)
    records = laboratory.training_records(1000, seed=3)
    (folder / "train.jsonl").write_text("".join(dump_line(record) + "\n" for record in records))
    file, tokenizer = check_training_file(folder / "train.jsonl"), load_tokenizer(folder)
    data, recipe = DataConfig(length=LENGTH, packing=True), RecipeConfig(epochs=1, batch=ROWS)
    planned = plan(file, tokenizer, tokenizer.eos_ids[0], data, recipe)
    return next(batches(planned, file, tokenizer, tokenizer.eos_ids[0], data, recipe)), tokenizer.vocab_size


def gradient(rows, dtype, mesh_text="data:1", accumulation=1, tied=False, settings=None, chunk=512):
    """What one step hands to the optimizer, each leaf by its name."""
    batch, words = rows
    words += -words % 2  # `tensor` divides it
    model = dataclasses.replace(MODEL, vocab_size=words, context=LENGTH, tied_embeddings=tied)
    program = make_program(
        mesh_text, model=model, optimizer=optax.trace(decay=0.0), dtype=dtype, packed=True, accumulation=accumulation,
        loss_chunk=chunk, lora=settings,
    )  # fmt: skip
    mesh = program.placement.mesh
    trained, frozen = parameters.init_params(model, jax.random.key(0), jnp.float32, deviation=0.1), None
    shardings = parameters.param_shardings(model, mesh)
    if settings is not None:
        frozen = jax.device_put(jax.tree.map(lambda x: x.astype(dtype), trained), shardings)
        # B is zero at first, and then A does not learn
        noise = jax.random.key(2)
        trained = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(noise, x.shape), lora.init(model, settings, noise))
        shardings = lora.shardings(model, settings, mesh)
    placed = state_shardings(trained, shardings, program.optimizer, mesh)
    state = init_state(jax.device_put(trained, shardings), program.optimizer)
    step = jax.jit(make_step(program), out_shardings=(placed, None))
    state, metrics = step(state, frozen, Feeding(ROWS, mesh).put(batch))
    assert metrics["targets"] > 1000
    leaves = jax.tree_util.tree_leaves_with_path(state["optimizer"].trace)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf, np.float64) for path, leaf in leaves}


@pytest.fixture(scope="module")
def exact(rows):
    """The gradient in float32, on one device and at once; computed once for each model."""
    return functools.cache(lambda tied, adapted: gradient(rows, "float32", tied=tied, settings=ADAPTERS if adapted else None))


def off(ours, exact):
    return np.linalg.norm(ours - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(
    "settings",
    [
        {"chunk": 64},
        {"mesh_text": "fsdp:4,tensor:2", "chunk": 16},
        {"mesh_text": "data:8", "tied": True, "accumulation": 2},
        {"mesh_text": "data:2,fsdp:2,tensor:2", "accumulation": 8},
        {"settings": ADAPTERS, "accumulation": 2},
    ],
    ids=lambda settings: ",".join(map(str, settings.values())) if "settings" not in settings else "lora",
)
def test_no_leaf_of_the_gradient_is_added_up_in_half_precision(rows, exact, settings):
    exact = exact(settings.get("tied", False), "settings" in settings)
    ours = gradient(rows, "bfloat16", **settings)
    assert ours.keys() == exact.keys()
    wrong = {name: off(ours[name], exact[name]) for name in exact}
    assert max(wrong.values()) < 0.02, wrong
    if "embed_tokens.weight" in exact:
        batch = rows[0]
        counts = np.bincount(batch["tokens"][batch["segments"] > 0])
        frequent = np.argsort(-counts)[:FREQUENT]
        assert counts[frequent].min() > 300  # a sum in bfloat16 would lose much of them
        for token in frequent:
            assert off(ours["embed_tokens.weight"][token], exact["embed_tokens.weight"][token]) < 0.02
