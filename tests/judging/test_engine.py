"""The engine against Hugging Face on the same weights, and against itself in other company."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.judging.batching import Prompt
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.trees import Trees
from judgelm_jax.model import parameters
from judgelm_jax.prompts.prompts import END
from judgelm_jax.tokens.tokenization import load_tokenizer
from judgelm_jax.verdicts.score_lines import SCORE_STRINGS, LineForm

NEW = 24
PAIR = LineForm(END, "", SCORE_STRINGS, 2)


def make_engine(folder, mesh, **settings):
    checkpoint = open_checkpoint(str(folder))
    settings = JudgeConfig(dtype="float32", **settings)
    params = checkpoint.load(parameters.param_shardings(checkpoint.config, mesh), settings.dtype)
    return Engine(params, checkpoint.config, mesh, settings, Trees(load_tokenizer(folder), settings.mode))


# Lengths of prompts, from and to: each bucket has programs of its own, and compiling those is what these tests take.
BUCKETS = ((5, 64), (89, 96), (137, 144))


def random_prompts(count, seed=0, buckets=BUCKETS, vocabulary=400):
    rng = np.random.default_rng(seed)
    lengths = [rng.integers(*buckets[place], endpoint=True) for place in rng.integers(0, len(buckets), count)]
    return [
        Prompt(i, np.concatenate([[1], rng.integers(3, vocabulary, length - 1)]).astype(np.int32),
            rng.integers(0, 2**32, 2, dtype=np.uint32), PAIR)
        for i, length in enumerate(lengths)
    ]  # fmt: skip


def responses(engine, prompts):
    found = {response.index: (response.ids, response.finish) for response in engine.run(prompts)}
    assert len(found) == len(prompts)
    return found


@pytest.fixture(scope="module")
def prompts():
    return random_prompts(20)


@pytest.fixture(scope="module")
def hugging_face(laboratory_checkpoint):
    return transformers.AutoModelForCausalLM.from_pretrained(laboratory_checkpoint, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def scores(laboratory_checkpoint, one_device):
    return make_engine(laboratory_checkpoint, one_device, batch_size=8)


@pytest.fixture(scope="module")
def explain(laboratory_checkpoint, one_device):
    return make_engine(laboratory_checkpoint, one_device, mode="explain", max_new_tokens=NEW, batch_size=8)


def greedy_line(model, tree, ids):
    """Constrained greedy decoding by hand: Hugging Face logits of the whole text, token by token."""
    node, line = tree.root, []
    while node != 0:
        with torch.no_grad():
            logits = model(torch.tensor([[*ids, *line]])).logits[0, -1].numpy()
        allowed = [(int(t), int(c)) for t, c in zip(tree.tokens[node], tree.children[node], strict=True) if t >= 0]
        token, node = max(allowed, key=lambda choice: logits[choice[0]])
        line.append(token)
    return line


def test_score_lines_equal_constrained_greedy_decoding_by_hand(scores, hugging_face, prompts):
    found = responses(scores, prompts)
    for prompt in prompts:
        assert found[prompt.index] == (greedy_line(hugging_face, scores.trees.of(PAIR), prompt.ids.tolist()), "stop")
    assert len({tuple(ids) for ids, _ in found.values()}) > 3  # the prompts do not all get one line


def hugging_face_text(model, ids, new, ends):
    with torch.no_grad():
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False, max_new_tokens=new,
            eos_token_id=list(ends), pad_token_id=0,
        )[0, len(ids) :].tolist()  # fmt: skip
    return (out[:-1], "stop") if out[-1] in ends else (out, "length")


def test_explanations_equal_hugging_face_token_by_token(laboratory_checkpoint, explain, hugging_face, prompts):
    # An untrained model hardly ever ends by itself, so tokens that it likes are made to end its text.
    plain = [hugging_face_text(hugging_face, prompt.ids.tolist(), NEW, (2,))[0] for prompt in prompts]
    ends = (2, plain[0][5], plain[1][11], plain[2][0])
    params = open_checkpoint(str(laboratory_checkpoint)).load(
        parameters.param_shardings(explain.config, explain.mesh), "float32"
    )
    engine = Engine(params, dataclasses.replace(explain.config, eos_ids=ends), explain.mesh, explain.settings, explain.trees)
    found = responses(engine, prompts)
    for prompt in prompts:
        assert found[prompt.index] == hugging_face_text(hugging_face, prompt.ids.tolist(), NEW, ends)
    assert {finish for _, finish in found.values()} == {"stop", "length"}
    assert any(ids == [] for ids, _ in found.values())  # ended at once


@pytest.mark.parametrize("mode", ["scores", "explain"])
@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_a_response_does_not_depend_on_company_padding_or_batch_size(
    request, laboratory_checkpoint, one_device, prompts, mode, temperature
):
    settings = {"mode": mode, "temperature": temperature, "max_new_tokens": NEW}
    one = make_engine(laboratory_checkpoint, one_device, batch_size=1, **settings)
    greedy = request.getfixturevalue(mode)
    eight = make_engine(laboratory_checkpoint, one_device, batch_size=8, **settings) if temperature else greedy
    expected = responses(eight, prompts)
    assert responses(one, prompts[:6]) == {index: expected[index] for index in range(6)}
    assert responses(eight, prompts[::-1]) == expected
    assert responses(eight, [prompts[3]]) == {3: expected[3]}
    crowd = [dataclasses.replace(prompt, index=prompt.index + 100) for prompt in random_prompts(9, seed=5, buckets=BUCKETS[:1])]
    among = responses(eight, [*crowd, *prompts[:6]])
    assert {index: among[index] for index in range(6)} == {index: expected[index] for index in range(6)}


def test_sampling_follows_the_prompts_key_and_the_models_probabilities(laboratory_checkpoint, one_device, hugging_face):
    engine = make_engine(laboratory_checkpoint, one_device, temperature=1.0, batch_size=64)
    prompt = random_prompts(1)[0]
    ids = prompt.ids
    keys = np.random.default_rng(3).integers(0, 2**32, (1024, 2), dtype=np.uint32)
    found = responses(engine, [Prompt(i, ids, key, prompt.form) for i, key in enumerate(keys)])
    assert found == responses(engine, [Prompt(i, ids, key, prompt.form) for i, key in enumerate(keys)])
    # The first token against the probabilities of the allowed tokens by Hugging Face.
    tree = engine.trees.of(PAIR)
    allowed = [int(token) for token in tree.tokens[tree.root] if token >= 0]
    with torch.no_grad():
        logits = hugging_face(torch.tensor(ids[None].astype(np.int64))).logits[0, -1, allowed]
    probabilities = torch.softmax(logits, dim=0).numpy()
    shares = np.array([np.mean([line[0] == token for line, _ in found.values()]) for token in allowed])
    deviations = np.sqrt(probabilities * (1 - probabilities) / len(keys))
    assert (np.abs(shares - probabilities) < 4.5 * deviations + 1e-9).all()


@pytest.mark.parametrize("mode", ["scores", "explain"])
def test_responses_are_the_same_on_eight_devices(request, laboratory_checkpoint, prompts, mode):
    settings = {"mode": mode, "max_new_tokens": NEW, "batch_size": 8}
    expected = responses(request.getfixturevalue(mode), prompts)
    mesh = make_mesh(MeshConfig.parse("data:2,fsdp:2,tensor:2"))
    assert responses(make_engine(laboratory_checkpoint, mesh, **settings), prompts) == expected


@pytest.mark.parametrize("mode", ["scores", "explain"])
def test_nothing_is_compiled_after_the_first_run(request, mode, prompts):
    engine = request.getfixturevalue(mode)
    expected = responses(engine, prompts)
    compiled = []
    listener = lambda event, *_, **__: compiled.append(event) if "compile" in event else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        assert responses(engine, prompts) == expected
        assert not compiled
        jax.jit(lambda x: x * 3 + len(compiled))(jnp.ones(17))  # the listener does hear a compilation
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def test_slots_stay_busy_with_prompts_of_very_different_length(laboratory_checkpoint, one_device):
    engine = make_engine(laboratory_checkpoint, one_device, mode="explain", max_new_tokens=64, batch_size=8)
    prompts = random_prompts(64)
    assert responses(engine, prompts)
    assert engine.counts.busy_slot_steps / engine.counts.slot_steps >= 0.9


def test_an_empty_run_responds_to_nothing(scores, explain):
    assert responses(scores, []) == {}
    assert responses(explain, []) == {}


def test_a_response_that_fills_the_context_is_refused(laboratory_checkpoint, one_device):
    with pytest.raises(InputError, match="max_new_tokens"):
        make_engine(laboratory_checkpoint, one_device, mode="explain", max_new_tokens=2048)


def test_the_real_checkpoint_writes_its_golden_text_token_by_token(shared, one_device):
    import json

    folder = shared / "data" / "checkpoints" / "stories260K-hf"
    golden = json.loads((folder.parent / "stories260K_golden.json").read_text())["greedy"]
    engine = make_engine(folder, one_device, mode="explain", max_new_tokens=200)
    prompts = [Prompt(i, np.array(case["prompt_ids"], np.int32), np.zeros(2, np.uint32)) for i, case in enumerate(golden)]
    found = responses(engine, prompts)
    for index, case in enumerate(golden):
        begin = len(case["prompt_ids"])
        assert found[index] == (case["output_ids"][begin : begin + 200], "length")
