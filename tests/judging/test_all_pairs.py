"""Prompts that begin alike get what they would get alone."""

import jax
import numpy as np
import pytest

from judgelm_jax import Judge, laboratory
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.evaluation.formats.joining import pairs_of
from judgelm_jax.judging.config import JudgeConfig


@pytest.fixture(scope="module")
def pairs():
    """All pairs of four answers to three questions."""
    records = []
    for number, pair in enumerate(laboratory.make_pairs(3, seed=5)):
        record = {"question_id": number, "question_body": pair.record["question_body"]}
        for place in range(1, 5):
            text = pair.record[f"answer{1 + place % 2}_body"] + " It is so." * (20 + place)
            record |= {f"answer{place}_body": text, f"answer{place}_model_id": str(place), f"answer{place}_metadata": {}}
        records += pairs_of(record, "all")
    return records


def judged(folder, mesh, records, **settings):
    judge = Judge.load(str(folder), mesh, JudgeConfig(dtype="float32", orders="both", **settings))
    prompts = judge.prepare(list(enumerate(records)), {}, "both").prompts
    responses = {response.index: response for response in judge.engine.run(prompts)}
    assert responses.keys() == set(range(len(prompts))) == set(range(36))
    counts = judge.engine.counts
    assert counts.prompt_tokens == sum(len(prompt.ids) for prompt in prompts)
    prefixes = {tuple(prompt.ids[:end]) for prompt in prompts for end in range(1, len(prompt.ids) + 1)}
    return responses, counts.shared_tokens / (counts.prompt_tokens - len(prefixes))


@pytest.mark.parametrize(
    ("mode", "mesh"),
    [
        ("scores", "data:1"),
        pytest.param("distribution", "data:1", marks=pytest.mark.slow),
        pytest.param("explain", "data:1", marks=pytest.mark.slow),
        ("distribution", "data:2,tensor:2"),
    ],
)
def test_verdicts_are_the_same_with_and_without_company(laboratory_checkpoint, one_device, pairs, mode, mesh):
    config = MeshConfig.parse(mesh)
    devices = make_mesh(config, jax.devices()[: 4 if "tensor" in mesh else 1])
    settings = {"mode": mode, "max_new_tokens": 8}
    together, saved = judged(laboratory_checkpoint, devices, pairs, **settings)
    alone, nothing = judged(laboratory_checkpoint, one_device, pairs, batch_size=1, **settings)
    # Of all that could be saved: nearly everything where few batches suffice.
    assert saved > (0.99 if mode != "explain" and mesh == "data:1" else 0.6)
    assert nothing == 0
    for index, answer in alone.items():
        assert together[index].ids == answer.ids
        if mode == "distribution":
            np.testing.assert_allclose(together[index].log_probabilities, answer.log_probabilities, atol=1e-4)
    if mode != "distribution":
        assert len({tuple(answer.ids) for answer in alone.values()}) > 1
