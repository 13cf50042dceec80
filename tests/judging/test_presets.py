"""Judging with presets: labels and grades, first and behind a reason, in conversations; against Hugging Face."""

import json

import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.judge import Judge
from judgelm_jax.tokens.chat_template import chat_ids

RECORDS = [
    {
        "question_id": number,
        "question_body": f"What is {number} + {number}?",
        "answer1_body": f"It is {2 * number}.",
        "answer2_body": "I do not know.",
        "rubric": "[Is it right?]",
    }
    for number in (1, 2)
]
TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(laboratory_checkpoint, tmp_path_factory):
    """The small judge with a chat template."""
    import shutil

    folder = tmp_path_factory.mktemp("chat") / "judge"
    shutil.copytree(laboratory_checkpoint, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def load(folder, mesh, **settings):
    return Judge.load(str(folder), mesh, JudgeConfig(dtype="float32", **settings))


def written(tmp_path, text):
    path = tmp_path / "preset.toml"
    path.write_text(text)
    return str(path)


def log_probability(model, ids, behind):
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.tensor([[*ids, *behind]])).logits[0], dim=-1)
    return sum(float(logs[len(ids) - 1 + place, token]) for place, token in enumerate(behind))


def softmax(values):
    weights = np.exp(np.asarray(values) - max(values))
    return weights / weights.sum()


def test_labels_have_the_probabilities_of_hugging_face_and_swap_with_the_answers(folder, one_device, model):
    judge = load(folder, one_device, preset="pandalm", mode="distribution", orders="both")
    rows = [judgment.row for judgment in judge.judge(RECORDS)]
    prepared = judge.prepare(list(enumerate(RECORDS)), {}, "both")
    for row, (forward, back) in zip(rows, zip(prepared.prompts[::2], prepared.prompts[1::2], strict=True), strict=True):
        for prompt, own, positions in ((forward, row["forward"], "12"), (back, row["reversed"], "21")):
            end = judge.tokenizer.encode(prompt.form.end)
            behind = [judge.tokenizer.encode(f"{prompt.form.end}{word}\n")[len(end) :] for word in ("1", "2", "Tie")]
            first, second, tie = softmax([log_probability(model, prompt.ids, ids) for ids in behind])
            expected = dict(zip([*positions, "0"], (first, second, tie), strict=True))
            assert own["probabilities"] == pytest.approx(expected, abs=1e-4)
        assert row["winner"] == int(max(row["probabilities"], key=row["probabilities"].get))
        assert row["scores"] is None
        assert "expected_scores" not in row
        assert row["pred_preset"] == "pandalm"


def test_contradicting_labels_are_a_tie(folder, one_device):
    judge = load(folder, one_device, preset="pandalm", orders="both")
    for judgment in judge.judge(RECORDS):
        row = judgment.row
        assert row["forward"]["pred_text"] in ("1", "2", "Tie")
        winners = {row["forward"]["winner"], row["reversed"]["winner"]}
        assert row["winner"] == (winners.pop() if len(winners) == 1 else 0)
        assert row["status"] == "ok"


def test_labels_of_one_token_each(folder, one_device, model, tmp_path):
    text = 'template = "{question} 1: {answer1} 2: {answer2} The better one:"\nending = ""\n[labels]\n1 = 1\n2 = 2\n'
    judge = load(folder, one_device, preset=written(tmp_path, text), mode="distribution")
    prepared = judge.prepare(list(enumerate(RECORDS)), {}, "forward")
    for judgment, prompt in zip(judge.judge(RECORDS), prepared.prompts, strict=True):
        end = judge.tokenizer.encode(prompt.form.end)
        labels = [judge.tokenizer.encode(prompt.form.end + word)[len(end) :] for word in ("1", "2")]
        assert [len(ids) for ids in labels] == [1, 1]
        first, second = softmax([log_probability(model, prompt.ids, ids) for ids in labels])
        assert judgment.probabilities == pytest.approx({"0": 0, "1": first, "2": second}, abs=1e-4)


AFTER = """
template = "Q: {question} A: {answer1} B: {answer2} Think, then say.\\n"
verdict = "after"
marker = "So "
ending = "\\n"
reason_tokens = 12
[labels]
"9" = 1
"2" = 2
"""


def test_a_verdict_behind_a_reason(folder, one_device, model, tmp_path):
    judge = load(folder, one_device, preset=written(tmp_path, AFTER), mode="distribution")
    rows = [judgment.row for judgment in judge.judge(RECORDS)]
    prepared = judge.prepare(list(enumerate(RECORDS)), {}, "forward")
    for row, prompt in zip(rows, prepared.prompts, strict=True):
        ids = prompt.ids.tolist()
        with torch.inference_mode():
            out = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=0)[0, len(ids) :]
        reason = judge.tokenizer.decode([i for i in out.tolist() if i not in judge.engine.config.eos_ids]).partition("So")[0]
        assert row["explanation"] == reason.strip()
        assert row["pred_text"].startswith(reason)
        assert row["pred_text"][len(reason) :] in ("So 9", "So 2")
        assert row["probabilities"]["0"] == 0
        assert sum(row["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("end", [" so:", "so:", "?", "\nAnswer:", ". The better one is number"])
def test_a_verdict_may_stand_behind_a_short_text(folder, one_device, model, tmp_path, end):
    """The tokens of its beginning depend on what the answer before it ends with."""
    preset = written(tmp_path, f'template = """{{question}} {{answer1}} {{answer2}}{end}"""\n[labels]\n"9" = 1\n"2" = 2\n')
    judge = load(folder, one_device, preset=preset, mode="distribution")
    records = [RECORDS[0] | {"question_id": n, "answer2_body": text} for n, text in enumerate(("No.", "al", "1 ", "", "x\n"))]
    for row, prompt in zip(judge.judge(records), judge.prepare(list(enumerate(records)), {}, None).prompts, strict=True):
        text = f"{RECORDS[0]['question_body']} {RECORDS[0]['answer1_body']} {row.row['answer2_body']}{end}"
        whole = [judge.tokenizer.encode(f"{text}{word}\n") for word in ("9", "2")]
        ids = judge.tokenizer.encode(text)
        assert prompt.ids.tolist() == [judge.tokenizer.bos_id, *ids]
        assert all(found[: len(ids)] == ids for found in whole)
        first, second = softmax([log_probability(model, prompt.ids, found[len(ids) :]) for found in whole])
        assert row.probabilities == pytest.approx({"0": 0, "1": first, "2": second}, abs=1e-4)


def test_a_free_text_is_read_behind_its_last_marker(folder, one_device, tmp_path):
    judge = load(folder, one_device, preset=written(tmp_path, AFTER), mode="explain", max_new_tokens=8)
    (judgment,) = judge.judge(RECORDS[:1])
    assert judgment.status == "unparsed"  # it never wrote the marker
    case = judge.kind.cases_of(RECORDS[0], None, "auto")[0]
    reading = judge.kind.reading(case, judge.asking.form(case))
    assert reading.form.read(reading.parts("9 is good. So 9. But no: So 2")[0]) == 2
    assert reading.parts("9 is good. So 2")[1] == "9 is good."
    assert reading.form.read("29") is None  # a word ends where another letter or digit does not follow


def test_a_conversation_is_what_the_template_of_hugging_face_writes(folder, one_device, model):
    judge = load(folder, one_device, preset="chat", mode="distribution", orders="both")
    prepared = judge.prepare(list(enumerate(RECORDS)), {}, "both")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    case = judge.kind.cases_of(RECORDS[0], None, "auto")[0]
    messages = [
        {"role": "system", "content": judge.kind.system},
        {"role": "user", "content": judge.kind.prompt(case, case.answers)},
    ]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = prepared.prompts[0].ids
    said = judge.tokenizer.decode(ids)
    assert said.split() == text.replace("<s>", " ").replace("</s>", " ").replace(".user", ". user").split()
    controls = [i for i in ids.tolist() if i in judge.tokenizer.control_ids]
    assert len(controls) == 5
    rows = [judgment.row for judgment in judge.judge(RECORDS)]
    form = judge.asking.form(case)
    end = judge.tokenizer.encode(form.end)
    assert tuple(ids[-len(end) :]) == tuple(end)
    behind = [judge.tokenizer.encode(form.end + word)[len(end) :] for word in ("A", "B", "tie")]
    first, second, tie = softmax([log_probability(model, ids, label) for label in behind])
    assert rows[0]["forward"]["probabilities"] == pytest.approx({"0": tie, "1": first, "2": second}, abs=1e-4)


def test_further_questions_are_messages_of_the_conversation(folder, one_device, model):
    judge = load(folder, one_device, preset="chat", mode="explain", max_new_tokens=8)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    (judgment,) = judge.judge(RECORDS[:1])
    chat = judge.chat(judgment)
    case = judge.kind.cases_of(RECORDS[0], None, "auto")[0]
    messages = [
        {"role": "system", "content": judge.kind.system},
        {"role": "user", "content": judge.kind.prompt(case, case.answers)},
        {"role": "assistant", "content": judgment.row["pred_text"]},
    ]
    for question in ("Why?", "Sure?</s>"):
        messages.append({"role": "user", "content": question})
        before = chat_ids(chat.template, messages)
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        # The </s> of a question is text here, and a control token to Hugging Face.
        assert text.count("</s>") - len([i for i in before if i == judge.tokenizer.control_names["</s>"]]) == text.count(
            "?</s></s>"
        )
        answer = "".join(chat.ask(question))
        with torch.inference_mode():
            out = model.generate(torch.tensor([before]), max_new_tokens=8, do_sample=False, pad_token_id=0)[0, len(before) :]
        expected = [i for i in out.tolist() if i not in judge.engine.config.eos_ids]
        assert chat.ids == before + expected
        assert answer == judge.tokenizer.decode(expected)
        messages.append({"role": "assistant", "content": answer})


def test_presets_without_a_conversation_have_no_further_questions(folder, one_device):
    judge = load(folder, one_device, preset="pandalm")
    with pytest.raises(InputError, match="'pandalm' says nothing of further questions"):
        judge.chat(next(judge.judge(RECORDS)))


def test_grades_of_a_scale(folder, one_device):
    record = {name: value for name, value in RECORDS[0].items() if name != "answer2_body"}
    text = 'template = "{question} {answer1} Grade:"\nscale = "1:5:1"\n'
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as place:
        preset = written(Path(place), text)
        (judgment,) = load(folder, one_device, kind="single", preset=preset, mode="distribution").judge([record])
    assert set(judgment.row["score_probabilities"]) == set("12345")
    assert judgment.row["pred_text"] in "12345"
    assert 1 <= judgment.row["expected_scores"][0] <= 5


def test_no_room_for_a_prompt_behind_reasons_is_said(folder, one_device, tmp_path):
    judge = load(folder, one_device, preset=written(tmp_path, AFTER.replace("= 12", "= 5000")))
    with pytest.raises(InputError, match="leaves no room for a prompt"):
        list(judge.judge(RECORDS))


def test_a_tokenizer_without_chat_template_is_refused(laboratory_checkpoint, one_device):
    with pytest.raises(InputError, match="has no chat template"):
        load(laboratory_checkpoint, one_device, preset="chat")
