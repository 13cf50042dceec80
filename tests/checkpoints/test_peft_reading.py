"""Adapters that the `peft` library writes, opened as a model: the logits that `peft` itself computes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder

TOKENS = np.random.default_rng(0).integers(3, 90, (2, 30))
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "regular expression": {"target_modules": r".*\.(q_proj|down_proj)"},
    "all linear": {"target_modules": "all-linear"},
    "rank-stabilized": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"model\.layers\.1\.self_attn\.v_proj": 5},
        "alpha_pattern": {"layers.0.self_attn.v_proj": 3, "q_proj": 40},
    },
    "some layers": {"layers_to_transform": [0, 2]},
    "one layer": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "without some": {"target_modules": ["q_proj", "k_proj", "up_proj"], "exclude_modules": ["layers.1.self_attn.q_proj"]},
    "dropout": {"lora_dropout": 0.5},
    "fan in": {"fan_in_fan_out": True},
    "gaussian": {"init_lora_weights": "gaussian"},
}


def write_adapter(base: Path, folder: Path, **settings: Any) -> np.ndarray:
    """Writes an adapter of `base` with random matrices; returns the logits that `peft` computes when it reads it again."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    values = {"r": 3, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | settings
    adapted = peft.get_peft_model(model, peft.LoraConfig(**values))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(folder)
    fresh = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        return peft.PeftModel.from_pretrained(fresh, folder).eval()(torch.tensor(TOKENS)).logits.numpy()


def our_logits(model: Path, base: str | None = None) -> np.ndarray:
    checkpoint = open_checkpoint(str(model), base)
    return np.asarray(decoder.logits(checkpoint.load(None, "float32"), checkpoint.config, TOKENS))


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def fault_of(folder: Path, base: str | None = None) -> str:
    with pytest.raises(InputError) as raised:
        open_checkpoint(str(folder), base)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def base(tmp_path: Path, write_checkpoint) -> Path:
    write_checkpoint(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
def test_an_adapter_computes_what_peft_computes(tmp_path: Path, base: Path, settings: dict[str, Any]) -> None:
    expected = write_adapter(base, tmp_path / "adapter", **settings)
    ours = our_logits(tmp_path / "adapter")
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert np.abs(ours - our_logits(base)).max() > 0.05


def test_an_adapter_in_a_bin_file_and_with_names_of_an_old_version(tmp_path: Path, base: Path) -> None:
    expected = write_adapter(base, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    torch.save(
        {name.replace(".weight", ".default.weight"): t for name, t in tensors.items()}, tmp_path / "adapter/adapter_model.bin"
    )
    np.testing.assert_allclose(our_logits(tmp_path / "adapter"), expected, atol=1e-4)


@pytest.mark.parametrize("to", ["orbax", "hf"])
def test_a_converted_adapter_is_a_whole_model(tmp_path: Path, base: Path, to: str) -> None:
    expected = write_adapter(base, tmp_path / "adapter")
    (base / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    convert(open_checkpoint(str(tmp_path / "adapter")), tmp_path / "merged", to)
    shutil.rmtree(base)
    np.testing.assert_allclose(our_logits(tmp_path / "merged"), expected, atol=1e-4)
    assert open_checkpoint(str(tmp_path / "merged")).config.eos_ids == (2, 7)


def test_the_base_is_looked_for_beside_the_adapter_then_from_the_current_folder(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write_adapter(base, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    for name in ("../base", "base", str(base)):
        change_config(tmp_path / "adapter", base_model_name_or_path=name)
        np.testing.assert_allclose(our_logits(tmp_path / "adapter"), expected, atol=1e-4)
    change_config(tmp_path / "adapter", base_model_name_or_path="./gone")
    assert "is an adapter of ./gone, which is not there; name its base with --base" in fault_of(tmp_path / "adapter")
    change_config(tmp_path / "adapter", base_model_name_or_path=None)
    assert "names no base; name it with --base, or as base_model_name_or_path there" in fault_of(tmp_path / "adapter")
    convert(open_checkpoint(str(base)), tmp_path / "orbax", "orbax")
    np.testing.assert_allclose(our_logits(tmp_path / "adapter", "orbax"), expected, atol=1e-4)
    change_config(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "adapter"))
    assert "is an adapter, too" in fault_of(tmp_path / "adapter")
    assert "is no adapter" in fault_of(base, str(base))


def test_an_adapter_beside_weights_is_pointed_out_and_applied_when_asked(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture
) -> None:
    plain = our_logits(base)
    expected = write_adapter(base, tmp_path / "adapter")
    for file in (tmp_path / "adapter").glob("adapter_*"):
        shutil.copy(file, base)
    capsys.readouterr()
    for _ in range(2):
        np.testing.assert_array_equal(our_logits(base), plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{base}: holds a PEFT adapter (adapter_config.json) beside whole weights, and it is not applied" in line
    np.testing.assert_allclose(our_logits(base, str(base)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"use_dora": True}, "use_dora is True"),
        ({"use_qalora": True}, "use_qalora is True"),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, "modules_to_save is ['embed_tokens', 'lm_head']"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is [1]"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"layers_pattern": "h"}, "layers_pattern is 'h'"),
        ({"of_the_future": 0.5}, "of_the_future is 0.5"),
        ({"target_modules": ["q_proj"]}, "does not ask for the adapter of model.layers.0.self_attn.v_proj"),
        ({"target_modules": ["q_proj", "v_proj", "lm_head"]}, "asks for an adapter of lm_head"),
        ({"target_modules": 3}, "target_modules or layers_to_transform cannot be read"),
        ({"target_modules": "(a+)+$"}, "may take for ever"),
        ({"rank_pattern": {"(a*)*b": 3}}, "rank_pattern cannot be read"),
        ({"r": 4}, "instead of [4, 32]"),
        ({"r": 0}, "must be a whole number of at least 1"),
        ({"r": "3"}, "must be a whole number of at least 1"),
        ({"lora_alpha": None}, "lora_alpha of model.layers.0.self_attn.q_proj is None"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused_by_name(tmp_path: Path, base: Path, values: dict[str, Any], message: str) -> None:
    write_adapter(base, tmp_path / "adapter")
    change_config(tmp_path / "adapter", **values)
    assert message in fault_of(tmp_path / "adapter")


def test_adapters_of_other_parts_and_broken_files_are_one_line(tmp_path: Path, base: Path) -> None:
    write_adapter(base, tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"base_model.model.lm_head.lora_A.weight": torch.zeros(3, 32)}, file)
    assert "holds base_model.model.lm_head.lora_A.weight, which is no adapter of this base" in fault_of(tmp_path / "adapter")
    gone = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, file)
    assert "of the adapter of model.layers.1.self_attn.q_proj one half is missing" in fault_of(tmp_path / "adapter")
    save_file(tensors, file)
    file.write_bytes(file.read_bytes()[:-10])
    assert f"{file}: broken or cut off" in fault_of(tmp_path / "adapter")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert f"{file}: is a Git LFS pointer" in fault_of(tmp_path / "adapter")
    file.unlink()
    assert "has no adapter_model.safetensors and no adapter_model.bin" in fault_of(tmp_path / "adapter")
    (tmp_path / "adapter/adapter_config.json").write_text("{")
    assert "adapter_config.json: not valid JSON" in fault_of(tmp_path / "adapter")


def test_of_two_adapters_of_one_base_and_two_bases_of_one_adapter_no_fingerprints_are_alike(
    tmp_path: Path, base: Path, write_checkpoint
) -> None:
    write_adapter(base, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    tensors = load_file(tmp_path / "b/adapter_model.safetensors")
    tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"][5, 1] += 1e-3
    save_file(tensors, tmp_path / "b/adapter_model.safetensors", metadata={"format": "pt"})
    write_checkpoint(tmp_path / "other", seed=1)
    found = [
        open_checkpoint(str(tmp_path / name), other).fingerprint
        for name, other in (("a", None), ("b", None), ("a", str(tmp_path / "other")))
    ]
    assert len({*found, open_checkpoint(str(base)).fingerprint}) == 4
    assert open_checkpoint(str(tmp_path / "a"), str(base)).fingerprint == found[0]
