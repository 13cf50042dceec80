"""Kinds as data: what they show of a record, byte for byte, and what they refuse."""

import dataclasses
import json

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.kinds import KINDS
from judgelm_jax.prompts import prompts
from judgelm_jax.prompts.prompts import Wording
from judgelm_jax.records.records import check_record
from judgelm_jax.verdicts.score_lines import SCORE_STRINGS


def record(question, answers, reference=None, **fields):
    found = {"question_id": 1, "question_body": question, **fields}
    found |= {f"answer{number}_body": answer for number, answer in enumerate(answers, start=1)}
    return found if reference is None else {**found, "reference": {"text": reference}}


def prompt_of(kind, one, reference, policy="auto"):
    (case,) = KINDS[kind].cases_of(one, reference, policy)
    return KINDS[kind].prompt(case, case.answers)


def test_records_become_the_golden_prompts(shared):
    golden = [json.loads(line) for line in (shared / "contract/golden_prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    golden = [row for row in golden if row["kind"] in ("pair", "single", "multi")]  # multimodal records have another form
    assert {row["kind"] for row in golden} == {"pair", "single", "multi"}
    for row in golden:
        one = record(row["question"], row["answers"], row["reference"])
        check_record(one, KINDS[row["kind"]].answers)
        assert prompt_of(row["kind"], one, row["reference"]).encode() == row["prompt"].encode()
        assert prompt_of(row["kind"], one, row["reference"], "none") == prompts.render(
            row["kind"], row["question"], row["answers"], None
        )


def test_a_reference_alone_takes_the_first_slot_and_begins_the_response():
    expected = prompts.render("single", "q {answer}", ["the truth {reference}", "mine"], None)
    assert prompt_of("single", record("q {answer}", ["mine"]), "the truth {reference}") == expected
    assert expected.endswith("### Response:10")
    assert "[Reference Answer]" not in expected


def test_one_answer_without_reference_is_asked_for_in_the_singular():
    (case,) = KINDS["single"].cases_of(record("q", ["mine"], "not shown"), "not shown", "none")
    prompt = KINDS["single"].prompt(case, case.answers)
    assert "performance of one AI assistant in response" in prompt
    assert "only one value indicating the score for Assistant 1. In the" in prompt
    assert "not shown" not in prompt
    assert "Assistant 2" not in prompt
    assert prompt.endswith(prompts.END)
    assert KINDS["single"].begun(case) == ""
    of_many = prompts.render("multi", "q", ["mine", "x"], None)
    assert prompt.partition("[The End of")[0] == of_many.partition("[The End of")[0]


@pytest.mark.parametrize(("kind", "reference"), [*((kind, "the truth") for kind in KINDS), ("pair", None), ("single", None)])
def test_the_line_stands_behind_the_end_of_every_prompt(kind, reference):
    policy = "auto" if reference else "none"
    for count in range(KINDS[kind].answers[0], (KINDS[kind].answers[1] or 5) + 1):
        row = record("q", [f"a{n}" for n in range(count)], reference)
        row |= {
            f"conversation_{n}": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{n}"}] for n in (1, 2)
        }
        (case,) = KINDS[kind].cases_of(row, reference, policy)
        form = KINDS[kind].form(case, SCORE_STRINGS)
        assert KINDS[kind].prompt(case, case.answers).endswith(form.end)
        assert form.count == len(case.answers)
        begun = KINDS[kind].begun(case)
        assert form.end.endswith("### Response:" + begun)
        assert next(iter(form.lines())) == form.begins + " ".join(["0"] * form.count) + "\n"
        assert form.begins == (" " if begun else "")


@pytest.mark.parametrize(
    ("kind", "answers", "says"),
    [
        ("pair", 1, "'answer2_body' is missing"),
        ("pair", 3, "3 answers where 2 are judged"),
        ("multi", 1, "'answer2_body' is missing"),
        ("single", 0, "'answer1_body' is missing"),
        ("single", 3, "3 answers where 2 are judged"),
    ],
)
def test_a_wrong_number_of_answers_is_refused(kind, answers, says):
    with pytest.raises(InputError, match=says):
        check_record(record("q", ["a"] * answers), KINDS[kind].answers)


def test_one_answer_needs_a_reference_or_the_word_that_there_is_none():
    with pytest.raises(InputError, match=r"--kind=single judges by a reference and this record has none; .*--reference=none"):
        KINDS["single"].cases_of(record("q", ["a"]), None, "auto")
    for policy in ("auto", "none"):  # the published form brings a known-good answer
        (case,) = KINDS["single"].cases_of(record("q", ["good", "mine"]), None, policy)
        assert (case.known, case.answers) == ("good", ("mine",))


def test_a_kind_with_another_wording_takes_its_fields_from_the_record():
    """What a preset is: other data of the same form."""
    wording = Wording("Rubric: {rubric}\nQ: {question}\nA: {answer1}\n{reference}Grade:", reference="R: {reference}\n")
    kind = dataclasses.replace(KINDS["single"], wording=wording, scores=("1", "2", "3"), needs_reference=False)
    one = record("{rubric}", ["{question} {0}"], rubric="{answer1}")
    (case,) = kind.cases_of(one, None, "auto")
    assert kind.prompt(case, case.answers) == "Rubric: {answer1}\nQ: {rubric}\nA: {question} {0}\nGrade:"
    assert (kind.form(case, kind.scores).end, kind.begun(case)) == ("Grade:", "")
    assert list(kind.form(case, kind.scores).lines()) == ["1\n", "2\n", "3\n"]
    (case,) = kind.cases_of(one, "{answer1}", "auto")  # no first slot for it: it is the reference
    assert kind.prompt(case, case.answers).endswith("\nR: {answer1}\nGrade:")
    with pytest.raises(InputError, match="the field 'rubric' is missing"):
        kind.cases_of(record("q", ["a"]), None, "auto")
