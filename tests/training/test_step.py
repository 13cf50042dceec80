"""One step: against torch, in micro-batches, packed, on meshes, and where numbers are not finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from judgelm_jax.checkpoints.tensor_names import tensor_table
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder, lora, parameters
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.loss import Batch
from judgelm_jax.training.optimizer import make_optimizer
from judgelm_jax.training.step import Program, accumulation_of, init_state, make_step, state_shardings
from judgelm_jax.training_config import LoraConfig, RecipeConfig, TrainConfig

from .conftest import MODEL, make_batch, make_program
from .test_loss import torch_loss, torch_model


@functools.cache
def compiled(**changes):
    """A program with the default recipe and its step, compiled once for the tests that need it."""
    program = make_program(**changes)
    return program, jax.jit(make_step(program))


def run(program, params, batches, frozen=None, step=None):
    """The state after these batches, and the metrics of each."""
    state = init_state(params, program.optimizer)
    step = step or jax.jit(make_step(program))
    told = []
    for batch in batches:
        state, metrics = step(state, frozen, batch)
        told.append({name: float(value) for name, value in metrics.items()})
    return state, told


def assert_close(tree, other, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0), tree, other)


@pytest.mark.parametrize(("decay", "remat"), [(0.0, "none"), (0.1, "full")])
def test_steps_equal_those_of_torch(params, decay, remat):
    recipe = RecipeConfig(learning_rate=1e-2, warmup=0.25, weight_decay=decay, clip_norm=0.5)
    batches = [make_batch(4, seed=seed) for seed in range(4)]
    state, told = run(make_program(recipe=recipe, steps=8, remat=remat), params, batches)

    model = torch_model(params)
    decaying = [p for name, p in model.named_parameters() if "norm" not in name]
    others = [p for name, p in model.named_parameters() if "norm" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=1.0, eps=recipe.epsilon
    )
    for batch, metrics in zip(batches, told, strict=True):
        optimizer.zero_grad()
        loss = torch_loss(model, batch) / batch.target_mask.sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = metrics["learning_rate"]
        optimizer.step()
        assert metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
        assert metrics["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)
        assert norm > recipe.clip_norm
    assert [metrics["learning_rate"] for metrics in told][:3] == pytest.approx([0, 5e-3, 1e-2])
    theirs = model.state_dict()
    moved = 0.0
    for name, spec in tensor_table(MODEL).items():
        ours, before = (functools.reduce(lambda node, key: node[key], spec.path, tree) for tree in (state["params"], params))
        ours, before = (x if spec.layer is None else x[spec.layer] for x in (ours, before))
        np.testing.assert_allclose(ours, theirs[name].numpy(), atol=1e-5, rtol=0)
        moved = max(moved, float(jnp.abs(ours - before).max()))
    assert moved > 1e-2


@pytest.mark.parametrize(
    ("accumulation", "documents", "remat"),
    [
        pytest.param(2, 1, "none", marks=pytest.mark.slow),
        (2, 2, "full"),
        pytest.param(4, 1, "full", marks=pytest.mark.slow),
        (4, 2, "none"),
        (8, 1, "none"),
        (8, 2, "dots"),
        (1, 2, "full"),
    ],
)
def test_micro_batches_equal_one_batch(params, accumulation, documents, remat):
    batch = make_batch(8, seed=1, documents=documents)  # of very different numbers of targets
    assert len({row.sum() for row in batch.target_mask}) > 3
    program, step = compiled(packed=documents > 1)
    whole, told = run(program, params, [batch], step=step)
    program = make_program(packed=documents > 1, accumulation=accumulation, remat=remat)
    parts, told_of_parts = run(program, params, [batch])
    assert told_of_parts[0] == pytest.approx(told[0], rel=1e-5)
    assert_close(parts["params"], whole["params"], 2e-6)


def test_packed_documents_train_as_if_each_had_its_row(params):
    packed = make_batch(3, seed=2, documents=3)
    rows = []
    for row in range(3):
        for number in range(1, 4):
            own = packed.segments[row] == number
            size, start = own.sum(), int(np.argmax(own))
            tokens, positions, segments = (np.zeros(own.size, np.int32) for _ in range(3))
            tokens[:size], positions[:size], segments[:size] = packed.tokens[row][own], np.arange(size), 1
            indices = packed.target_indices[row] - start
            mask = packed.target_mask[row] * ((indices >= 0) & (indices < size))
            indices = np.where(mask > 0, indices, 0)
            rows.append(Batch(tokens, positions, segments, indices, packed.target_ids[row], mask))
    unpacked = Batch(*(np.stack(leaves) for leaves in zip(*rows, strict=True)))
    program, step = compiled(packed=True)
    state, told = run(program, params, [packed], step=step)
    expected, expected_told = run(make_program(packed=False), params, [unpacked])
    assert told[0] == pytest.approx(expected_told[0], rel=1e-5)
    assert_close(state["params"], expected["params"], 2e-6)


def test_tokens_and_squares_count_documents(params):
    batch = make_batch(3, seed=2, documents=3)
    program, step = compiled(packed=True)
    _, told = run(program, params, [batch], step=step)
    sizes = [(batch.segments[row] == number).sum() for row in range(3) for number in range(1, 4)]
    assert told[0]["tokens"] == sum(sizes)
    assert told[0]["squares"] == sum(size**2 for size in sizes)
    assert told[0]["targets"] == batch.target_mask.sum()


@pytest.fixture(scope="module", params=[None, LoraConfig(rank=4, targets=("q_proj", "down_proj"))], ids=["all", "lora"])
def unsharded(params, request):
    """Two steps on one device: with which adapters, on which batch, of what, and what became of it."""
    settings, batch = request.param, make_batch(16, seed=4, documents=2)
    trained, frozen = (params, None) if settings is None else (lora.init(MODEL, settings, jax.random.key(1)), params)
    if settings is not None:  # B is zero at first, and then A does not learn
        trained = jax.tree.map(lambda x: x + 0.1, trained)
    return settings, batch, trained, frozen, *run(make_program(packed=True, lora=settings), trained, [batch, batch], frozen)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("data:8", marks=pytest.mark.slow),
        pytest.param("fsdp:8", marks=pytest.mark.slow),
        "data:2,fsdp:2,tensor:2",
        "fsdp:4,tensor:2",
    ],
)
def test_sharded_equals_unsharded(unsharded, text):
    settings, batch, trained, frozen, expected, told = unsharded
    program = make_program(text, packed=True, lora=settings, accumulation=2, remat="full")
    mesh = program.placement.mesh
    whole = parameters.param_shardings(MODEL, mesh)
    shardings = whole if settings is None else lora.shardings(MODEL, settings, mesh)
    placed = state_shardings(trained, shardings, program.optimizer, mesh)
    # The state is made in its shards: nothing else is ever on a device.
    state = jax.jit(lambda x: init_state(x, program.optimizer), out_shardings=placed)(jax.device_put(trained, shardings))
    frozen = None if settings is None else jax.device_put(frozen, whole)
    step = jax.jit(make_step(program), donate_argnums=0, out_shardings=(placed, None))
    feeding = Feeding(16, mesh)
    assert (feeding.part, feeding.parts) == (0, 1)
    for metrics in told:
        state, own = step(state, frozen, feeding.put(batch._asdict()))
        assert {name: float(value) for name, value in own.items()} == pytest.approx(metrics, rel=1e-4)
    assert_close(state["params"], expected["params"], 1e-5)
    jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim) or pytest.fail(f"{x.sharding} {s}"), state, placed)
    moments = jax.tree.leaves(state["optimizer"])
    assert sum(leaf.size for leaf in moments) < 2 * sum(leaf.size for leaf in jax.tree.leaves(trained)) + 10
    split = [leaf for leaf in moments if leaf.addressable_shards[0].data.size < leaf.size]
    assert bool(split) == (text != "data:8")


def test_an_update_far_below_the_resolution_of_bfloat16_is_kept(params):
    recipe = RecipeConfig(learning_rate=2e-6, warmup=0.0)
    program = make_program(recipe=recipe, steps=1000, dtype="bfloat16")
    batch = make_batch(4, seed=0)
    ones = params | {"norm": {"weight": jnp.ones_like(params["norm"]["weight"])}}
    state, _ = run(program, ones, [batch] * 5)
    moved = np.abs(np.asarray(state["params"]["norm"]["weight"]) - 1)
    # Adam moves each parameter by about the learning rate: 1e-5 of its size in five steps. In bfloat16 all would be lost.
    assert 5e-6 < np.median(moved) < 2e-5
    assert jnp.all((1 - moved).astype(jnp.bfloat16) == 1)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state["params"]))
    assert {leaf.dtype for leaf in jax.tree.leaves(state["optimizer"])} <= {jnp.dtype("float32"), jnp.dtype("int32")}


def test_the_computation_is_in_bfloat16_where_it_is_asked_for(params):
    program = make_program(dtype="bfloat16")
    state = init_state(params, program.optimizer)
    text = jax.jit(make_step(program)).lower(state, None, make_batch(2, seed=0)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line and f"x{MODEL.intermediate_size}x" in line]
    assert products
    assert [line for line in products if "bf16" not in line] == []


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(params):
    program, step = compiled(packed=False)
    good, bad = make_batch(8, seed=0), make_batch(8, seed=1)
    broken = bad._replace(target_mask=bad.target_mask * np.float32(np.inf))
    state, told = run(program, params, [good, broken, broken, good], step=step)
    expected, _ = run(program, params, [good, good], step=step)
    assert [metrics["skipped"] for metrics in told] == [0, 1, 2, 2]
    assert [metrics["skipped_in_a_row"] for metrics in told] == [0, 1, 2, 0]
    assert int(state["updates"]) == 2
    assert_close(state["params"], expected["params"], 0)
    assert_close(state["optimizer"], expected["optimizer"], 0)


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-30, 1e-20, 1.0, 1e18])
def test_the_update_of_a_finite_gradient_is_finite(scale):
    """Also with the smallest ε and decay that a config may have, where squares are too small or too large for float32."""
    recipe = RecipeConfig(warmup=0.0, epsilon=1e-30, weight_decay=10.0, beta1=0.0, beta2=0.0, learning_rate=10.0)
    optimizer = make_optimizer(recipe, 10)
    params = {"weight": jnp.array([[1.0, -2.0, 0.0]])}
    gradient = {"weight": jnp.array([[1.0, -1e-8, 0.0]], jnp.float32) * scale}
    assert np.isfinite(optax.tree.norm(gradient))
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    assert np.isfinite(updates["weight"]).all()


def test_sums_in_place_need_no_stack_of_weights_in_the_dtype_of_the_computation(monkeypatch):
    """Nor one of gradients of a micro-batch: either has its shape in the program before it is compiled."""
    shapes = jax.eval_shape(lambda: parameters.init_params(MODEL, jax.random.key(0), jnp.float32))
    stack = "tensor<{}x{}x{}xbf16>".format(*shapes["layers"]["mlp"]["up_proj"]["weight"].shape)

    def program_text():
        program = make_program(accumulation=4, remat="full", dtype="bfloat16")
        state = jax.eval_shape(lambda trained: init_state(trained, program.optimizer), shapes)
        return jax.jit(make_step(program)).lower(state, None, make_batch(8, seed=0)).as_text()

    assert stack not in program_text()
    monkeypatch.setattr(Program, "sums_in_place", property(lambda self: False))
    assert stack in program_text()


def test_a_batch_that_does_not_divide_is_refused():
    mesh = make_mesh(MeshConfig.parse("data:8"))
    config = TrainConfig()
    config.training.batch = 12
    with pytest.raises(InputError, match="batch=12: does not divide over the 8 devices"):
        accumulation_of(config, mesh)
    config.training.batch, config.training.micro_batch = 48, 4
    with pytest.raises(InputError, match="micro_batch=4: does not divide the 6 rows"):
        accumulation_of(config, mesh)
    config.training.micro_batch = 2
    assert accumulation_of(config, mesh) == 3


def test_only_adapters_have_moments(params):
    settings = LoraConfig(rank=2, targets=("v_proj",))
    adapters = lora.init(MODEL, settings, jax.random.key(0))
    state = init_state(adapters, make_program(lora=settings).optimizer)
    size = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    assert size == MODEL.num_layers * 2 * (MODEL.hidden_size + MODEL.num_kv_heads * MODEL.head_dim)
    floats = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32]
    assert sum(leaf.size for leaf in floats) == 3 * size


def test_torch_is_the_same_model(params):
    batch = make_batch(2, seed=0)
    with torch.no_grad():
        theirs = torch_model(params)(torch.tensor(batch.tokens).long()).logits.numpy()
    np.testing.assert_allclose(decoder.logits(params, MODEL, batch.tokens), theirs, atol=1e-4)
