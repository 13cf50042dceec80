"""The distribution over score lines against every line by itself, through our model and through Hugging Face."""

import shutil

import family_models
import numpy as np
import pytest
import torch
import transformers

from judgelm_jax import Judge, laboratory
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.judging import line_tree, programs, sizing
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.tokens.tokenization import TOKENIZER_FILES, load_tokenizer
from judgelm_jax.verdicts import distributions
from judgelm_jax.verdicts.score_lines import LineForm


def load(folder, mesh, **settings):
    return Judge.load(str(folder), mesh, JudgeConfig(dtype="float32", mode="distribution", **settings))


@pytest.fixture(scope="module")
def judge(laboratory_checkpoint, one_device):
    return load(laboratory_checkpoint, one_device)


@pytest.fixture(scope="module")
def records():
    return [pair.record for pair in laboratory.make_pairs(5, seed=2)]


def lines_of(grid):
    return list(LineForm("", "", distributions.grid(grid), 2).lines())


def brute_force(model, tokenizer, prompt_ids, lines):
    """log P of each line: the whole text, prompt and line, through Hugging Face, a row a line."""
    prompt = tokenizer.decode(prompt_ids)
    rows = [[tokenizer.bos_id, *tokenizer.encode(prompt + line)] for line in lines]
    longest = max(map(len, rows))
    with torch.no_grad():
        logits = model(torch.tensor([ids + [0] * (longest - len(ids)) for ids in rows])).logits  # padding comes last
    found = []
    for ids, logs in zip(rows, torch.log_softmax(logits, dim=-1), strict=True):
        assert ids[: len(prompt_ids)] == prompt_ids
        found.append(sum(float(logs[i - 1, ids[i]]) for i in range(len(prompt_ids), len(ids))))
    return np.array(found)


@pytest.fixture(scope="module")
def windowed_checkpoint(tmp_path_factory, laboratory_checkpoint):
    """A model with windows of 7 tokens, so that slots of the tree that are no positions would be seen or missed."""
    folder = tmp_path_factory.mktemp("windowed")
    family_models.make("gemma2", folder, vocab_size=512, max_position_embeddings=2048)
    for name in TOKENIZER_FILES:
        if (laboratory_checkpoint / name).is_file():
            shutil.copy(laboratory_checkpoint / name, folder)
    return folder


@pytest.mark.parametrize(
    "checkpoint",
    ["laboratory", *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.optimized]) for name in ("stories", "windowed"))],
)
def test_every_line_has_the_probability_of_a_pass_of_its_own(request, one_device, records, checkpoint):
    if checkpoint == "stories":
        folder = request.getfixturevalue("shared") / "data" / "checkpoints" / "stories260K-long-hf"
    else:
        folder = request.getfixturevalue(f"{checkpoint}_checkpoint")
    loading = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **loading).eval()
    judge = load(folder, one_device)
    lines = lines_of("1:10:1")
    prepared = judge.prepare(list(enumerate(records[:4])), {}, "forward")
    found = {answer.index: answer.log_probabilities for answer in judge.engine.run(prepared.prompts)}
    for row in prepared.prompts:
        some = np.arange(row.index, len(lines), 4)  # each pass is a whole prompt: 25 lines a prompt, other ones for each
        expected = brute_force(model, judge.tokenizer, row.ids.tolist(), [lines[i] for i in some])
        np.testing.assert_allclose(found[row.index][some], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["tokenizers/llama_hf", "checkpoints/stories260K-hf"])
@pytest.mark.parametrize("text", ["1:10:1", "0:10:2.5"])
def test_the_tree_holds_each_line_once(shared, name, text):
    tokenizer = load_tokenizer(shared / "data" / name)
    lines = lines_of(text)
    tree = line_tree.build(tokenizer, lines)
    begin = len(tokenizer.encode("x### Response:"))
    for line, path in zip(lines, tree.paths, strict=True):
        tokens = [int(tree.edge_tokens[edge]) for edge in path if edge < len(tree.edge_tokens)]
        assert tokens == tokenizer.encode("x### Response:" + line)[begin:]
    assert (tree.depths == tree.ancestors.sum(axis=1) - 1).all()


def test_it_sums_to_the_covered_mass_and_agrees_with_sums_by_hand(judge, records):
    values = np.arange(1, 11)
    prepared = judge.prepare([(0, records[0])], {}, "forward")
    (answer,) = judge.engine.run(prepared.prompts)
    joint = np.exp(answer.log_probabilities.astype(np.float64)).reshape(10, 10)
    (judgment,) = judge.judge([records[0]])
    row = judgment.row
    assert row["covered_mass"] == pytest.approx(joint.sum(), rel=1e-6)
    joint /= joint.sum()
    first, second = np.meshgrid(values, values, indexing="ij")
    by_hand = {"1": joint[first > second].sum(), "2": joint[first < second].sum(), "0": joint[first == second].sum()}
    assert judgment.probabilities == pytest.approx(by_hand, rel=1e-6)
    assert sum(judgment.probabilities.values()) == pytest.approx(1)
    assert row["expected_scores"] == pytest.approx([(joint * first).sum(), (joint * second).sum()])
    assert row["entropy"] == pytest.approx(-(joint * np.log(joint)).sum())
    best = np.unravel_index(joint.argmax(), joint.shape)
    assert judgment.scores == [values[best[0]], values[best[1]]]
    assert judgment.winner == int(max(by_hand, key=by_hand.get))
    assert row["pred_text"] == f"{values[best[0]]} {values[best[1]]}"


def test_winning_in_one_order_is_losing_in_the_other_of_the_exchanged_record(laboratory_checkpoint, one_device, judge, records):
    back = load(laboratory_checkpoint, one_device, orders="reversed")
    exchanged = [
        record | {"answer1_body": record["answer2_body"], "answer2_body": record["answer1_body"]} for record in records
    ]
    for ours, theirs in zip(judge.judge(records), back.judge(exchanged), strict=True):
        assert ours.probabilities["1"] == pytest.approx(theirs.probabilities["2"], rel=1e-4)
        assert ours.probabilities["0"] == pytest.approx(theirs.probabilities["0"], rel=1e-4)
        assert ours.row["expected_scores"] == pytest.approx(theirs.row["expected_scores"][::-1], rel=1e-4)
        assert ours.row["pred_text"] == theirs.row["pred_text"]  # both saw the same prompt


def test_both_orders_give_the_mean_distribution_and_the_bias_of_the_record(laboratory_checkpoint, one_device, judge, records):
    back = list(load(laboratory_checkpoint, one_device, orders="reversed").judge(records))
    both = list(load(laboratory_checkpoint, one_device, orders="both").judge(records))
    for one, other, merged in zip(judge.judge(records), back, both, strict=True):
        for name in ("0", "1", "2"):
            mean = (one.probabilities[name] + other.probabilities[name]) / 2
            assert merged.probabilities[name] == pytest.approx(mean, rel=1e-4)  # other batches, so other rounding
        assert merged.row["forward"]["probabilities"] == pytest.approx(one.probabilities, rel=1e-4)
        shown_first = one.probabilities["1"] + other.probabilities["2"]
        shown_second = one.probabilities["2"] + other.probabilities["1"]
        assert merged.row["position_bias"] == pytest.approx((shown_first - shown_second) / 2, abs=1e-4)
        assert merged.winner == int(max(merged.probabilities, key=merged.probabilities.get))


def test_a_tree_computed_in_parts_gives_the_same_probabilities(laboratory_checkpoint, one_device, records, monkeypatch):
    fine = "1:3:0.25"
    whole = load(laboratory_checkpoint, one_device, score_grid=fine, batch_size=2)
    prepared = whole.prepare(list(enumerate(records)), {}, "forward")
    expected = {answer.index: answer.log_probabilities for answer in whole.engine.run(prepared.prompts)}
    nodes = len(whole.engine.trees.of(prepared.prompts[0].form).tokens)
    for pairs in (1, 40_000):  # a node at a time; a number at a time that does not divide that of the nodes
        monkeypatch.setattr(line_tree, "_PAIRS_AT_ONCE", pairs)
        parts = load(laboratory_checkpoint, one_device, score_grid=fine, batch_size=2)
        for answer in parts.engine.run(prepared.prompts):
            np.testing.assert_allclose(np.exp(answer.log_probabilities), np.exp(expected[answer.index]), rtol=0, atol=1e-6)
            np.testing.assert_allclose(answer.log_probabilities, expected[answer.index], rtol=0, atol=1e-4)
    assert nodes > 100


def test_batches_count_the_nodes_of_the_tree(laboratory_checkpoint, one_device, monkeypatch):
    """The cache has a place for each node of each prompt: prompts × nodes are bounded, however many prompts there are."""
    seen = []
    monkeypatch.setattr(programs.Programs, "compile_score", lambda self, params, work, room: seen.extend(work[0][2]) or 0.0)
    judge = load(laboratory_checkpoint, one_device, score_grid="1:10:0.25")
    prompts = judge.prepare(list(enumerate(pair.record for pair in laboratory.make_pairs(60, seed=2))), {}, "forward").prompts
    with pytest.raises(KeyError):  # nothing was compiled
        next(judge.engine.run(prompts))
    nodes = len(judge.engine.trees.of(prompts[0].form).tokens)
    assert sum(len(batch.prompts_by_index) for batch in seen) == 60
    assert all(batch.capacity * (batch.prompt_length + nodes) <= 2 * sizing._CACHE_TOKENS for batch in seen)
    assert nodes * 60 > 2 * sizing._CACHE_TOKENS


def test_a_distribution_does_not_depend_on_company_or_mesh(laboratory_checkpoint, one_device, records):
    alone = load(laboratory_checkpoint, one_device, batch_size=1)
    mesh = make_mesh(MeshConfig.parse("data:2,fsdp:2,tensor:2"))
    sharded = load(laboratory_checkpoint, mesh, batch_size=8)
    for one, other in zip(alone.judge(records), sharded.judge(records), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, rel=1e-4)
        assert one.row["pred_text"] == other.row["pred_text"]
