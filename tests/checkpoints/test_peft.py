"""Adapters that we write, as the `peft` library reads them: the same logits, gradients and merged weights."""

import json
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import peft
import pytest
import safetensors
import torch
import transformers
from safetensors.numpy import load_file

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.peft import write_peft
from judgelm_jax.checkpoints.tensor_names import tensor_table
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder, lora
from judgelm_jax.training_config import LORA_TARGETS, LoraConfig

TOKENS = np.random.default_rng(0).integers(3, 300, (3, 40))
SETTINGS = {
    "q and v": LoraConfig(rank=4, alpha=6.0),
    "all": LoraConfig(rank=3, alpha=16.0, targets=LORA_TARGETS),
    "one, with a broken scale": LoraConfig(rank=5, alpha=0.7, targets=("k_proj",)),
}


@pytest.fixture(scope="module")
def checkpoint(laboratory_checkpoint):
    """Grouped queries: 4 heads, 2 key/value heads."""
    return open_checkpoint(str(laboratory_checkpoint))


@pytest.fixture(scope="module", params=SETTINGS.values(), ids=SETTINGS)
def setting(request) -> LoraConfig:
    return request.param


@pytest.fixture(scope="module")
def adapters(checkpoint, setting):
    return trained(checkpoint.config, setting)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint, setting, adapters) -> Path:
    folder = tmp_path_factory.mktemp("run") / "adapters"
    write_peft(folder, adapters, setting, str(checkpoint.folder))
    return folder


def trained(config, setting):
    """Adapters as training could leave them: B is not zero."""
    rng = np.random.default_rng(1)
    initial = lora.init(config, setting, jax.random.key(0))
    return jax.tree.map(lambda x: np.asarray(x) + rng.normal(0, 0.1, x.shape).astype(np.float32), initial)


def opened(folder: Path, trainable: bool = False):
    """The adapters on the model that they name, by PEFT; what it does not find or know would only be a warning there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = peft.AutoPeftModelForCausalLM.from_pretrained(folder, is_trainable=trainable, dtype=torch.float32)
    return model.train(trainable)


def test_peft_computes_the_logits_that_we_compute(checkpoint, setting, adapters, folder):
    params = checkpoint.load(None, "float32")
    logits = jax.jit(decoder.logits, static_argnums=1)
    out = np.asarray(logits(lora.attach(params, adapters, setting), checkpoint.config, TOKENS))
    with torch.no_grad():
        expected = opened(folder)(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(out, expected, atol=1e-4)
    assert np.abs(out - logits(params, checkpoint.config, TOKENS)).max() > 0.02


@pytest.mark.parametrize("setting", [SETTINGS["all"]], indirect=True, ids=["all"])
def test_peft_computes_the_gradients_that_we_compute(checkpoint, setting, adapters, folder):
    params = checkpoint.load(None, "float32")

    @jax.jit
    @jax.grad
    def gradient(adapters):
        attached = lora.attach(params, adapters, setting)
        return jnp.tanh(decoder.logits(attached, checkpoint.config, TOKENS) / 4).sum() / TOKENS.size

    model = opened(folder, trainable=True)
    (torch.tanh(model(torch.tensor(TOKENS)).logits / 4).sum() / TOKENS.size).backward()
    theirs = {name: value.grad.numpy() for name, value in model.named_parameters() if value.requires_grad}
    ours = gradient(adapters)["layers"]
    assert len(theirs) == len(jax.tree.leaves(ours)) * checkpoint.config.num_layers
    for part, projections in ours.items():
        for name, pair in projections.items():
            for layer in range(checkpoint.config.num_layers):
                place = f"base_model.model.model.layers.{layer}.{part}.{name}"
                for leaf, matrix in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
                    expected = theirs[f"{place}.{matrix}.default.weight"]
                    assert np.abs(expected).max() > 1e-3
                    np.testing.assert_allclose(pair[leaf][layer], expected, atol=1e-4)


def test_peft_merges_as_we_merge(checkpoint, setting, adapters, folder):
    theirs = opened(folder).merge_and_unload().state_dict()
    table = tensor_table(checkpoint.config)
    assert set(theirs) == set(table)
    weights = checkpoint.weights.read(list(table))
    changed = 0
    for name, spec in table.items():
        own, pair = weights[name], adapters
        for key in spec.path[:-1]:
            pair = pair.get(key, {})
        if "lora_a" in pair:
            own = lora.merged(own, pair["lora_a"][spec.layer], pair["lora_b"][spec.layer], lora.scale(setting))
            changed += 1
        np.testing.assert_allclose(own, theirs[name].numpy(), atol=1e-6, rtol=0)
    assert changed == len(setting.targets) * checkpoint.config.num_layers


def test_the_files_are_those_that_peft_writes(tmp_path, checkpoint, setting, adapters, folder):
    base = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.folder)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=setting.rank, lora_alpha=setting.alpha, target_modules=list(setting.targets)
    )
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    assert {file.name for file in folder.iterdir()} == {file.name for file in tmp_path.iterdir()} - {"README.md"}
    with (
        safetensors.safe_open(folder / "adapter_model.safetensors", "np") as ours,
        safetensors.safe_open(tmp_path / "adapter_model.safetensors", "np") as theirs,
    ):
        assert ours.metadata() == theirs.metadata() == {"format": "pt"}
        forms = [
            {name: (file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()) for name in sorted(file.keys())}
            for file in (ours, theirs)
        ]
        assert forms[0] == forms[1]
    written, expected = (json.loads((place / "adapter_config.json").read_text()) for place in (folder, tmp_path))
    for values in (written, expected):
        values["target_modules"] = sorted(values["target_modules"])
    assert written == {field: expected[field] for field in written}
    # What is not written has in PEFT the value that means nothing.
    read, saved = (peft.LoraConfig.from_pretrained(place).to_dict() for place in (folder, tmp_path))
    assert read == saved


def test_alpha_is_a_whole_number_where_it_can_be(tmp_path, checkpoint):
    for alpha, written in ((16.0, "16"), (16, "16"), (0.5, "0.5")):
        setting = LoraConfig(rank=1, alpha=alpha)
        write_peft(tmp_path / "adapters", trained(checkpoint.config, setting), setting, "ORG/judge")
        assert f'"lora_alpha": {written},' in (tmp_path / "adapters" / "adapter_config.json").read_text()


def test_adapters_keep_their_dtype_and_any_memory_layout(tmp_path, checkpoint):
    setting = LoraConfig(rank=2)
    adapters = jax.tree.map(lambda x: np.asfortranarray(x.astype(ml_dtypes.bfloat16)), trained(checkpoint.config, setting))
    write_peft(tmp_path / "adapters", adapters, setting, "ORG/judge")
    read = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    assert read[name].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(read[name], adapters["layers"]["self_attn"]["v_proj"]["lora_b"][1])


def test_adapters_replace_older_ones_and_nothing_else(tmp_path, checkpoint):
    place, setting = tmp_path / "run" / "adapters", LoraConfig(rank=1)
    adapters = trained(checkpoint.config, setting)
    (tmp_path / "run" / ".adapters.partial" / "adapters").mkdir(parents=True)  # of a run that was killed
    (tmp_path / "run" / ".adapters.partial" / "adapters" / "rest").write_text("x")
    for base in ("ORG/first", "ORG/second"):
        write_peft(place, adapters, setting, base)
        assert json.loads((place / "adapter_config.json").read_text())["base_model_name_or_path"] == base
        assert [file.name for file in place.parent.iterdir()] == ["adapters"]
        assert len(list(place.iterdir())) == 2
    assert len({file.stat().st_mode for file in place.iterdir()}) == 1

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("x")
    (tmp_path / "link").symlink_to(place)
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "link", "file"):
        with pytest.raises(InputError, match=f"{name}: holds no adapters, so it is not overwritten") as raised:
            write_peft(tmp_path / name, adapters, setting, "ORG/judge")
        assert "\n" not in str(raised.value)
    assert (tmp_path / "thesis" / "chapter").read_text() == (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("failing", ["save_file", "replace_folder"])
def test_an_error_leaves_what_was_there(tmp_path, checkpoint, monkeypatch, failing):
    place, setting = tmp_path / "adapters", LoraConfig(rank=1)
    adapters = trained(checkpoint.config, setting)
    write_peft(place, adapters, setting, "ORG/first")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"judgelm_jax.checkpoints.peft.{failing}", full)
    for target in (place, tmp_path / "other"):
        with pytest.raises(InputError, match=f"{target.name}: the adapters could not be written .*No space left"):
            write_peft(target, adapters, setting, "ORG/second")
    assert [file.name for file in tmp_path.iterdir()] == ["adapters"]
    assert json.loads((place / "adapter_config.json").read_text())["base_model_name_or_path"] == "ORG/first"
