"""Score lines of one, three and four answers against Hugging Face, one pass a line, on the real checkpoint."""

import numpy as np
import pytest
import torch
import transformers

from judgelm_jax import Judge, laboratory
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.verdicts import distributions

TOLERANCE = 1e-4  # of a logarithm, float32 on both sides


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "checkpoints" / "stories260K-long-hf"


@pytest.fixture(scope="module")
def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def record(number, answers):
    texts = [pair.record[f"answer{side}_body"] for pair in laboratory.make_pairs(4, seed=number) for side in (1, 2)]
    found = {"question_id": number, "question_body": "Which colour is it?", "reference": "The boat is red."}
    return found | {f"answer{place}_body": texts[place] for place in range(1, answers + 1)}


def load(folder, mesh, **settings):
    return Judge.load(str(folder), mesh, JudgeConfig(dtype="float32", **settings))


def logs_behind(model, ids):
    """float64 [tokens, V]: the log-probabilities behind each token, through Hugging Face."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1).numpy()


def log_probability(model, ids, start):
    """Of the tokens from `start` on, given those before them."""
    logs = logs_behind(model, ids)
    return sum(logs[place - 1, ids[place]] for place in range(start, len(ids)))


def line_ids(tokenizer, prompt_ids, line):
    """The ids of prompt and line, from the whole text."""
    ids = [tokenizer.bos_id, *tokenizer.encode(tokenizer.decode(prompt_ids) + line)]
    assert ids[: len(prompt_ids)] == prompt_ids
    return ids


@pytest.mark.parametrize(
    ("kind", "reference", "answers", "begins"),
    [("single", "auto", 1, " "), ("single", "none", 1, ""), ("multi", "auto", 3, "")],  # two: test_distribution.py
)
def test_every_line_has_the_probability_of_a_pass_of_its_own(folder, one_device, model, kind, reference, answers, begins):
    judge = load(folder, one_device, kind=kind, reference=reference, mode="distribution")
    prepared = judge.prepare([(0, record(1, answers))], {})
    (prompt,) = prepared.prompts
    (response,) = judge.engine.run(prepared.prompts)
    lines = list(prompt.form.lines())
    assert len(lines) == 10**answers
    assert all(line.startswith(begins) for line in lines)
    ids = prompt.ids.tolist()
    assert judge.tokenizer.decode(ids).endswith("### Response:10" if begins else "### Response:")
    for index in range(0, len(lines), max(1, len(lines) // 12)):
        whole = line_ids(judge.tokenizer, ids, lines[index])
        expected = log_probability(model, whole, len(ids))
        assert response.log_probabilities[index] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.optimized
def test_four_scores_are_those_behind_the_likeliest_before_them(folder, one_device, model):
    judge = load(folder, one_device, kind="multi", mode="distribution")
    one = record(2, 4)
    prepared = judge.prepare([(0, one)], {})
    (prompt,) = prepared.prompts
    (response,) = judge.engine.run(prepared.prompts)
    values, ids = [str(value) for value in range(1, 11)], prompt.ids.tolist()
    # What may stand behind a score that is not the last: the first token of every further score.
    begin = len(line_ids(judge.tokenizer, ids, "1"))
    followers = {line_ids(judge.tokenizer, ids, f"1 {value}")[begin] for value in values}
    line, goes_on = "", 0.0
    for number in range(4):
        found = []
        for value in values:
            last = number == 3
            whole = line_ids(judge.tokenizer, ids, line + value + ("\n" if last else ""))
            logs = logs_behind(model, whole)
            before = len(line_ids(judge.tokenizer, ids, line.rstrip())) if line else len(ids)
            own = sum(logs[place - 1, whole[place]] for place in range(before, len(whole)))
            after = 0.0 if last else np.logaddexp.reduce([logs[-1, token] for token in followers])
            found.append((own + after - goes_on, after))
        np.testing.assert_allclose(response.log_probabilities[number], [own for own, _ in found], atol=TOLERANCE)
        likeliest = int(np.argmax([own for own, _ in found]))
        goes_on, line = found[likeliest][1], f"{line}{values[likeliest]} "
    row = next(judge.judge([one])).row
    assert row["factorized"] is True
    assert row["pred_text"] == line.strip()
    factors = distributions.from_log_probabilities(response.log_probabilities, prompt.form.words, (1, 2, 3, 4))
    assert row["expected_scores"] == pytest.approx(factors.expected_scores(), rel=1e-5)
    assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert set(row["probabilities"]) == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("kind", "reference", "answers"), [("single", "auto", 1), pytest.param("multi", "auto", 3, marks=pytest.mark.slow)]
)
def test_score_lines_are_greedy_among_those_that_the_grammar_allows(folder, one_device, model, kind, reference, answers):
    judge = load(folder, one_device, kind=kind, reference=reference)
    window = list(enumerate([record(number, answers) for number in (3, 4)]))
    prepared = judge.prepare(window, {})
    found = {response.index: response.ids for response in judge.engine.run(prepared.prompts)}
    for prompt in prepared.prompts:
        tree, node, ids = judge.engine.trees.of(prompt.form), None, prompt.ids.tolist()
        node, line = tree.root, []
        while node != 0:
            logits = logs_behind(model, [*ids, *line])[-1]
            allowed = [(int(t), int(c)) for t, c in zip(tree.tokens[node], tree.children[node], strict=True) if t >= 0]
            token, node = max(allowed, key=lambda choice: logits[choice[0]])
            line.append(token)
        assert found[prompt.index] == line
    rows = [judgment.row for judgment in judge.judge(one for _, one in window)]
    for row in rows:
        shown = [float(text) for text in row["pred_text"].split()]
        assert shown[-answers:] == row["scores"]
        assert len(shown) == answers + (kind == "single" and reference == "auto")
