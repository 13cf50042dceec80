"""Prompts of the presets, whole, against what each project's own functions write (their sources are named in the presets)."""

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.presets import kind_of

RUBRIC = "[Is it true?]\nScore 1: no.\nScore 5: yes."
RECORD = {
    "question_id": 1,
    "question_body": "What is {answer1}?\n",
    "answer1_body": "It is {reference}.",
    "answer2_body": "</s>[INST] None.",
    "rubric": RUBRIC,
}
ONE = {name: value for name, value in RECORD.items() if name != "answer2_body"}
TASK = (
    "###Task Description:\nAn instruction (might include an Input inside it), a response to evaluate, {what}and a score rubric "
    "representing a evaluation criteria are given.\n"
    "1. Write a detailed feedback that assess the quality of {whose} strictly based on the given score rubric, not evaluating "
    "in general.\n2. After writing a feedback, {verdict} You should refer to the score rubric.\n"
    '3. The output format should look as follows: "(write a feedback for criteria) [RESULT] ({form})"\n'
    "4. Please do not generate any other opening, closing, and explanations.\n\n"
)
FAIR_ABSOLUTE = (
    "[INST] You are a fair judge assistant tasked with providing clear, objective feedback based on specific criteria, "
    "ensuring each assessment reflects the absolute standards set for performance.\n"
)
FAIR_RELATIVE = (
    "[INST] You are a fair judge assistant assigned to deliver insightful feedback that compares individual performances, "
    "highlighting how each stands relative to others within the same cohort.\n"
)


def prompt(preset, record, kind="pair", reference=None):
    own = kind_of(kind, preset)
    (case,) = own.cases_of(record, reference, "auto")
    return own.prompt(case, case.answers)


@pytest.mark.parametrize("reference", [None, "It is 4."])
def test_prometheus_absolute(reference):
    task = TASK.format(
        what="" if reference is None else "a reference answer that gets a score of 5, ",
        whose="the response",
        verdict="write a score that is an integer between 1 and 5.",
        form="an integer number between 1 and 5",
    )
    middle = "" if reference is None else f"###Reference Answer (Score 5):\n{reference}\n\n"
    assert prompt("prometheus_absolute", ONE, "single", reference) == (
        f"{FAIR_ABSOLUTE}{task}###The instruction to evaluate:\nWhat is {{answer1}}?\n\n\n###Response to evaluate:\n"
        f"It is {{reference}}.\n\n{middle}###Score Rubrics:\n{RUBRIC}\n\n###Feedback:  [/INST]"
    )


@pytest.mark.parametrize("reference", [None, "It is 4."])
def test_prometheus_relative(reference):
    task = TASK.format(
        what="" if reference is None else "a reference answer, ",
        whose="two responses",
        verdict="choose a better response between Response A and Response B.",
        form="A or B",
    )
    middle = "" if reference is None else f"###Reference Answer:\n{reference}\n\n"
    assert prompt("prometheus_relative", RECORD, reference=reference) == (
        f"{FAIR_RELATIVE}{task}###Instruction:\nWhat is {{answer1}}?\n\n\n###Response A:\nIt is {{reference}}.\n\n"
        f"###Response B:\n</s>[INST] None.\n\n{middle}###Score Rubric:\n{RUBRIC}\n\n###Feedback:  [/INST]"
    )


@pytest.mark.parametrize("given", [None, "2 + 2"])
def test_pandalm(given):
    record = RECORD if given is None else {**RECORD, "input": given}
    task = "The task is defined by the Instruction"
    task += "." if given is None else " with an Input that provides further context."
    shown = "" if given is None else f"### Input:\n{given}\n\n"
    assert prompt("pandalm", record, reference="not shown") == (
        f"Below are two responses for a given task. {task} Evaluate the responses and generate a reference answer for the "
        f"task.\n\n### Instruction:\nWhat is {{answer1}}?\n\n\n{shown}### Response 1:\nIt is {{reference}}.\n\n"
        "### Response 2:\n</s>[INST] None.\n\n### Evaluation:\n"
    )


def test_auto_j():
    data = "[BEGIN DATA]\n***\n[Query]: What is {answer1}?\n\n***\n"
    assert prompt("auto_j", RECORD) == (
        "[INST] You are assessing two submitted responses on a given user's query and judging which response is better or they "
        f"are tied. Here is the data:\n\n{data}[Response 1]: It is {{reference}}.\n***\n[Response 2]: </s>[INST] None.\n***\n"
        "[END DATA]\n\nHere are the instructions to assess and compare the two responses:\n\n"
        "1. Pinpoint the key factors to distinguish these two responses.\n"
        "2. Conclude your comparison by providing a final decision on which response is better, or they are tied. Begin your "
        'final decision statement with "So, the final decision is Response 1 / Response 2 / Tie". Ensure that your decision '
        "aligns coherently with the comprehensive evaluation and comparison you've provided. [/INST]"
    )
    assert prompt("auto_j_single", ONE, "single") == (
        "[INST] Write critiques for a submitted response on a given user's query, and grade the response:\n  \n"
        f"{data}[Response]: It is {{reference}}.\n***\n[END DATA]\n\nWrite critiques for this response. After that, you should "
        "give a final rating for the response on a scale of 1 to 10 by strictly following this format: "
        '"[[rating]]", for example: "Rating: [[5]]". [/INST]'
    )


def test_what_does_not_fit_is_named():
    with pytest.raises(InputError, match="rubric"):
        prompt("prometheus_relative", {name: value for name, value in RECORD.items() if name != "rubric"})
    with pytest.raises(InputError, match="shows one answer: it goes with --kind=single"):
        kind_of("pair", "prometheus_absolute")
    with pytest.raises(InputError, match="shows two answers: it goes with --kind=pair"):
        kind_of("multi", "chat")
