import re

import jax
import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.checkpoints.tensor_names import tensor_table
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.model import config_json, parameters
from judgelm_jax.model.placement import Placement
from judgelm_jax.training.loss import Batch, total_loss
from judgelm_jax.training.step import batch_sharding

from .conftest import MODEL, make_batch


def torch_model(params, config=MODEL):
    """The same weights in Hugging Face's model."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config_json.to_hf(config, "float32"))).float()
    tensors = {}
    for name, spec in tensor_table(config).items():
        leaf = params
        for key in spec.path:
            leaf = leaf[key]
        tensors[name] = torch.tensor(np.asarray(leaf if spec.layer is None else leaf[spec.layer]))
    model.load_state_dict(tensors)
    return model


def torch_documents(batch):
    """(ids, labels) of each document, labels −100 where nothing is predicted."""
    for row in range(batch.tokens.shape[0]):
        labels = np.full(batch.tokens.shape[1], -100)
        chosen = batch.target_mask[row] > 0
        labels[batch.target_indices[row][chosen] + 1] = batch.target_ids[row][chosen]
        for number in range(1, batch.segments[row].max() + 1):
            own = batch.segments[row] == number
            yield torch.tensor(batch.tokens[row][own]).long()[None], torch.tensor(labels[own]).long()[None]


def torch_loss(model, batch):
    """The sum of −log P over targets, one document at a time."""
    total = 0
    for ids, labels in torch_documents(batch):
        logits = model(ids).logits[:, :-1]
        total += torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="sum")
    return total


@pytest.mark.parametrize("attention", ["reference", "xla", "blocked"])
@pytest.mark.parametrize("documents", [1, 3])
def test_loss_equals_hugging_face_one_document_at_a_time(params, documents, attention):
    batch = make_batch(4, seed=documents, documents=documents)
    placement = Placement(attention=attention)
    ours = jax.jit(total_loss, static_argnums=(1, 3, 4, 5))(params, MODEL, batch, placement, documents > 1, 256)
    with torch.no_grad():
        theirs = float(torch_loss(torch_model(params), batch))
    assert theirs > 100
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(("remat", "chunk"), [("none", 3), ("none", 17), ("dots", 1000), ("full", 17)])
def test_neither_chunks_nor_rematerialization_change_loss_or_gradient(params, chunk, remat):
    batch = make_batch(3, seed=5, documents=2)

    def value_and_gradient(remat, chunk):
        placement = Placement(attention="blocked", remat=remat)
        return jax.jit(jax.value_and_grad(lambda p: total_loss(p, MODEL, batch, placement, True, chunk)))(params)

    (expected, gradient), (ours, own) = value_and_gradient("none", 1000), value_and_gradient(remat, chunk)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), own, gradient)


def test_logits_of_all_words_never_exist_whole(params):
    batch = make_batch(4, seed=0)
    rows, targets = batch.target_ids.shape
    chunk = 16
    assert rows * targets > 3 * chunk
    gradient = jax.grad(lambda p: total_loss(p, MODEL, batch, Placement(attention="blocked"), False, chunk))
    text = jax.jit(gradient).lower(params).as_text()
    assert f"<1x{chunk}x{MODEL.vocab_size}xf32" in text
    assert f"<1x{rows * targets}x{MODEL.vocab_size}xf32" not in text
    assert f"x1x{chunk}x{MODEL.vocab_size}xf32" not in text  # nor all chunks, stacked
    assert f"{rows}x{batch.tokens.shape[1]}x{MODEL.vocab_size}xf32" not in text


def test_padding_of_tokens_and_of_targets_costs_nothing(params):
    batch = make_batch(2, seed=3)
    loss = jax.jit(total_loss, static_argnums=(1, 3, 4, 5))
    expected = loss(params, MODEL, batch, Placement(attention="blocked"), False, 256)
    tokens = np.where(batch.segments == 0, 17, batch.tokens)
    indices = np.where(batch.target_mask == 0, 5, batch.target_indices)
    other = batch._replace(tokens=tokens, target_indices=indices)
    assert loss(params, MODEL, other, Placement(attention="blocked"), False, 256) == expected


def test_the_output_matrix_is_gathered_and_its_gradient_reduced_once_for_all_chunks(params):
    """Of a compiled gradient on eight devices: no collective on the output matrix is in a loop over chunks."""
    mesh = make_mesh(MeshConfig.parse("data:2,fsdp:4"))
    shardings = parameters.param_shardings(MODEL, mesh)
    batch = Batch(*(jax.device_put(x, batch_sharding(mesh)) for x in make_batch(16, seed=6)))
    gradient = jax.grad(lambda p: total_loss(p, MODEL, batch, Placement(mesh, "xla"), False, 5))
    text = jax.jit(gradient, out_shardings=shardings).lower(jax.device_put(params, shardings)).compile().as_text()
    found, entry = [], False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            entry = line.startswith("ENTRY")
        collective = re.search(r" (all-gather|all-reduce|reduce-scatter)(-start)?\(", line)
        if collective and f"[{MODEL.vocab_size}," in line[: collective.end()]:
            found.append((collective[1], entry))
    assert {kind for kind, _ in found} >= {"all-gather"}
    assert len([kind for kind, _ in found if kind != "all-gather"]) >= 1
    assert all(entry for _, entry in found), found
