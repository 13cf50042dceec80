"""Saved steps of a run: kept, restored exactly or refused, and opened as models."""

import errno
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.training_run import TrainingCheckpoints
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.model import config_json, decoder, lora, parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.training.optimizer import make_optimizer
from judgelm_jax.training.step import init_state, state_shardings
from judgelm_jax.training_config import LoraConfig, RecipeConfig

MODEL = ModelConfig(
    vocab_size=512, hidden_size=32, intermediate_size=48, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, context=64,
    norm_epsilon=1e-5, rope_base=10000.0, rope_scaling=None, tied_embeddings=False, bos_id=1, eos_ids=(2,),
)  # fmt: skip
ABOUT = {"hf_config": config_json.to_hf(MODEL, "float32"), "export_dtype": "float32", "lora": None, "init_from": None}
ABOUT |= {"init_fingerprint": None}
OPTIMIZER = make_optimizer(RecipeConfig(), 10)
TOKENS = np.random.default_rng(0).integers(3, 512, (2, 20))


@pytest.fixture(scope="module")
def params():
    return parameters.init_params(MODEL, jax.random.key(0), jnp.float32, deviation=0.2)


def abstract(state, mesh=None, params=None):
    if mesh is None:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    placed = state_shardings(params, parameters.param_shardings(MODEL, mesh), OPTIMIZER, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, placed)


def assert_equal(tree, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), tree, other)


def test_state_and_iterator_come_back_exactly_on_any_mesh(params, tmp_path):
    state = init_state(params, OPTIMIZER)
    state["optimizer"] = jax.tree.map(lambda x: x + 3, state["optimizer"])
    saved = TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT)
    saved.save(7, state, {"next_index": 7})
    saved.close()
    for text in ("data:1", "fsdp:8", "data:2,fsdp:2,tensor:2"):
        config = MeshConfig.parse(text)
        mesh = make_mesh(config, jax.devices()[: config.data * config.fsdp * config.tensor])
        again = TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT)
        wanted = abstract(state, mesh, params)
        restored = again.restore(wanted)
        assert (restored.step, restored.iterator) == (7, {"next_index": 7})
        assert_equal(restored.state, state)
        assert jax.tree.map(lambda x: x.sharding, restored.state) == jax.tree.map(lambda x: x.sharding, wanted)
        again.close()


def test_the_state_may_be_donated_while_it_is_written(params, tmp_path):
    saved = TrainingCheckpoints(tmp_path / "checkpoints", 1, False, ABOUT)
    state = init_state(params, OPTIMIZER)
    expected = jax.tree.map(np.asarray, state)
    shapes = abstract(state)
    overwrite = jax.jit(lambda state: jax.tree.map(lambda x: x * 0, state), donate_argnums=0)
    state = jax.tree.map(jnp.copy, state)
    saved.save(1, state, {})
    overwrite(state)
    saved.wait()
    assert_equal(saved.restore(shapes).state, expected)
    saved.close()


def test_the_last_ones_and_the_best_one_are_kept(params, tmp_path):
    saved = TrainingCheckpoints(tmp_path / "checkpoints", 2, True, ABOUT)
    for step in range(1, 9):
        best = step in (2, 5)
        saved.save(step, {"params": params["norm"]}, {}, {"step": 5 if step >= 5 else 2}, best)
    saved.wait()
    assert saved.latest == 8
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {5, 7, 8}
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), {"params": params["norm"]})
    assert saved.restore(shapes).choice == {"step": 5}
    saved.close()


@pytest.mark.parametrize("change", ["shape", "missing", "extra", "dtype"])
def test_another_state_is_refused(params, tmp_path, change):
    saved = TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT)
    state = {"params": {"a": params["norm"]["weight"], "b": jnp.int32(3)}}
    saved.save(1, state, {})
    saved.wait()
    wanted = abstract(state)
    if change == "shape":
        wanted["params"]["a"] = jax.ShapeDtypeStruct((33,), jnp.float32, sharding=wanted["params"]["a"].sharding)
    elif change == "dtype":
        wanted["params"]["a"] = jax.ShapeDtypeStruct((32,), jnp.bfloat16, sharding=wanted["params"]["a"].sharding)
    elif change == "missing":
        wanted["params"]["c"] = wanted["params"]["a"]
    else:
        wanted["params"].pop("b")
    with pytest.raises(InputError, match=r"checkpoints/1: cannot be restored .* remove this folder"):
        saved.restore(wanted)
    saved.close()


DAMAGES = {
    "empty metadata": ("_CHECKPOINT_METADATA", b""),
    "no metadata": ("_CHECKPOINT_METADATA", None),
    "broken metadata": ("_CHECKPOINT_METADATA", b"{["),
    "metadata of nothing": ("_CHECKPOINT_METADATA", b"{}"),
    "cut data": ("state/ocdbt.process_0/d/*", b"x" * 1000),
    "no data": ("state/ocdbt.process_0/d/*", None),
    "empty list of arrays": ("state/_METADATA", b""),
    "empty manifest": ("state/manifest.ocdbt", b""),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_one_short_line_and_the_one_before_goes_on(params, tmp_path, capfd, caplog, damage):
    state = {"params": params}
    with TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT) as saved:
        for step in (1, 2):
            saved.save(step, state, {"next_index": step})
            saved.wait()
    pattern, content = damage
    files = list((tmp_path / "checkpoints" / "2").glob(pattern))
    assert files
    for file in files:
        file.unlink()
        if content is not None:
            file.write_bytes(content)
    capfd.readouterr()
    caplog.clear()
    with (
        TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT) as saved,
        pytest.raises(
            InputError, match=r"checkpoints/2: cannot be restored \(.*\); remove this folder to go on from"
        ) as raised,
    ):
        saved.restore(abstract(state))
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""
    assert not caplog.records
    place = tmp_path / "checkpoints" / "2"
    if pattern != "state/_METADATA":  # without which the arrays can be opened by name
        with pytest.raises(InputError, match="checkpoints/2: a broken") as raised:  # as a model
            open_checkpoint(str(place)).load(None, "float32")
        assert len(str(raised.value)) < 400
    shutil.rmtree(place)
    with TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT) as saved:
        assert saved.restore(abstract(state)).step == 1


def test_what_a_killed_save_left_is_no_checkpoint(params, tmp_path):
    saved = TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT)
    saved.save(1, {"params": params}, {"next_index": 1})
    saved.close()
    half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "checkpoints" / "1", half)
    again = TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT)
    assert again.latest == 1
    assert not half.exists()
    again.close()


def test_a_full_disk_is_named_and_earlier_steps_stay(params, tmp_path, monkeypatch):
    saved = TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT)
    saved.save(1, {"params": params}, {"next_index": 1})
    saved.wait()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saved._checkpointer, "save_checkpointables_async", full)
    with pytest.raises(InputError, match="the disk is full; free space and run again with --resume, earlier checkpoints are"):
        saved.save(2, {"params": params}, {"next_index": 2})
    monkeypatch.undo()
    assert saved.restore(abstract({"params": params})).step == 1
    saved.close()


def test_a_save_that_fails_in_the_background_is_noticed_at_the_next_look(params, tmp_path, monkeypatch):
    class Failing:
        def result(self, timeout=None):
            raise OSError(errno.ENOSPC, "No space left on device")

    saved = TrainingCheckpoints(tmp_path / "checkpoints", 2, False, ABOUT)
    saved.save(1, {"params": params}, {"next_index": 1})
    saved.wait()
    saved.check()  # nothing is wrong
    monkeypatch.setattr(saved._checkpointer, "save_checkpointables_async", lambda *args, **kwargs: Failing())
    saved.save(2, {"params": params}, {"next_index": 2})
    with pytest.raises(InputError, match="the disk is full; free space and run again with --resume, earlier checkpoints are"):
        saved.check()
    monkeypatch.undo()
    assert saved.restore(abstract({"params": params})).step == 1
    saved.close()


@pytest.fixture(scope="module")
def run_folder(params, tmp_path_factory, laboratory_checkpoint):
    """A run with one saved step, as the loop leaves it."""
    folder = tmp_path_factory.mktemp("run")
    saved = TrainingCheckpoints(folder / "checkpoints", 2, False, ABOUT)
    saved.save(5, init_state(params, OPTIMIZER), {"next_index": 5})
    saved.close()
    shutil.copytree(laboratory_checkpoint, folder / "tokenizer", ignore=lambda _, names: [n for n in names if "token" not in n])
    return folder


def test_a_saved_step_opens_as_a_model_and_transformers_computes_the_same(params, run_folder, tmp_path):
    checkpoint = open_checkpoint(str(run_folder / "checkpoints" / "5"))
    assert checkpoint.config == MODEL
    loaded = checkpoint.load(None, "float32")
    assert_equal(loaded, params)
    mesh = make_mesh(MeshConfig.parse("fsdp:4,tensor:2"))
    assert_equal(checkpoint.load(parameters.param_shardings(MODEL, mesh), "float32"), params)
    convert(checkpoint, tmp_path / "hf", "hf")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS)).logits.numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(decoder.logits(loaded, MODEL, TOKENS), expected, atol=1e-4)
    convert(checkpoint, tmp_path / "orbax", "orbax")
    assert_equal(open_checkpoint(str(tmp_path / "orbax")).load(None, "float32"), params)


def test_adapters_are_merged_into_what_they_were_trained_on(params, run_folder, tmp_path):
    convert(open_checkpoint(str(run_folder / "checkpoints" / "5")), tmp_path / "base", "hf")
    base = open_checkpoint(str(tmp_path / "base"))
    settings = LoraConfig(rank=2, alpha=6.0, targets=("q_proj", "up_proj"))
    adapters = jax.tree.map(lambda x: x + 0.1, lora.init(MODEL, settings, jax.random.key(3)))
    about = ABOUT | {"lora": {"rank": 2, "alpha": 6.0, "targets": ["q_proj", "up_proj"]}}
    about |= {"init_from": str(tmp_path / "base"), "init_fingerprint": base.fingerprint}
    saved = TrainingCheckpoints(tmp_path / "run" / "checkpoints", 2, False, about)
    saved.save(1, init_state(adapters, OPTIMIZER), {})
    saved.close()
    shutil.copytree(run_folder / "tokenizer", tmp_path / "run" / "tokenizer")
    merged = open_checkpoint(str(tmp_path / "run" / "checkpoints" / "1"))
    expected = decoder.logits(lora.attach(params, adapters, settings), MODEL, TOKENS)
    plain = np.asarray(decoder.logits(params, MODEL, TOKENS))
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(decoder.logits(merged.load(None, "float32"), MODEL, TOKENS), expected, atol=1e-4)
    mesh = make_mesh(MeshConfig.parse("fsdp:4,tensor:2"))
    assert_equal(merged.load(parameters.param_shardings(MODEL, mesh), "float32"), merged.load(None, "float32"))
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-6}))
    with pytest.raises(InputError, match="which has changed since"):
        open_checkpoint(str(tmp_path / "run" / "checkpoints" / "1"))
