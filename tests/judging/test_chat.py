"""Questions about a judgment: what the judge reads, and that its answers are those of Hugging Face's `generate`."""

import numpy as np
import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.judging.chat import BEFORE, BEHIND
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.judge import Judge
from judgelm_jax.tokens.tokenization import going_on

RECORD = {
    "question_id": 1,
    "question_body": "Why is the sky blue?",
    "answer1_body": "Dust.",
    "answer2_body": "Air scatters it.",
}


@pytest.fixture(scope="module")
def judge(laboratory_checkpoint, one_device):
    return Judge.load(str(laboratory_checkpoint), one_device, JudgeConfig(mode="explain", max_new_tokens=24, dtype="float32"))


def test_answers_are_those_of_hugging_face_on_all_that_was_said(judge, laboratory_checkpoint):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(laboratory_checkpoint, dtype=torch.float32)
    (judgment,) = judge.judge([RECORD])
    chat = judge.chat(judgment)
    prompt = judge.prepare([(0, RECORD)], {}, "forward").prompts[0].ids.tolist()
    text = judge.tokenizer.decode(chat.ids[len(prompt) :])
    assert text.strip() == judgment.row["pred_text"].strip()
    for question in ("Why not the first?", "Really?</s>"):
        before = list(chat.ids)
        pieces = list(chat.ask(question))
        asked = before + going_on(judge.tokenizer, BEFORE + question + BEHIND)
        assert not set(asked[len(before) :]) & set(judge.tokenizer.control_ids)  # </s> is text
        with torch.inference_mode():
            out = model.generate(torch.tensor([asked]), max_new_tokens=24, do_sample=False, pad_token_id=0)[0, len(asked) :]
        expected = [token for token in out.tolist() if token not in judge.engine.config.eos_ids]
        assert chat.ids == asked + expected
        assert "".join(pieces) == judge.tokenizer.decode(expected)
        assert len(pieces) > 1


def test_a_text_goes_on_without_a_space_of_the_tokenizer(judge):
    text = f"{BEFORE}Hm{BEHIND}"
    assert judge.tokenizer.decode(going_on(judge.tokenizer, text)) == text


def test_a_conversation_that_is_too_long_ends_in_one_line(judge):
    chat = judge.chat(next(judge.judge([RECORD])))
    with pytest.raises(InputError, match=r"conversation has \d+ tokens and the answer may have 24"):
        list(chat.ask("why " * 3000))


def test_both_orders_and_reversed_go_on_from_what_was_shown(laboratory_checkpoint, one_device, judge):
    reversed_judge = Judge(
        judge.engine, judge.tokenizer, JudgeConfig(mode="explain", orders="reversed", max_new_tokens=24), "x"
    )
    chat = reversed_judge.chat(next(reversed_judge.judge([RECORD])))
    shown = judge.tokenizer.decode(chat.ids)
    assert shown.index("Air scatters it.") < shown.index("Dust.")
    np.testing.assert_array_less(0, len(chat.ids))
