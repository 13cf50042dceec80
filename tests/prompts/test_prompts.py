"""Prompts are part of the published weights: they are compared byte for byte."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import judgelm_jax
from judgelm_jax.prompts import prompts


def test_every_golden_prompt_is_rendered_byte_for_byte(shared: Path) -> None:
    golden = [json.loads(line) for line in (shared / "contract/golden_prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["kind"] for row in golden} == set(prompts.KINDS)
    for row in golden:
        rendered = prompts.render(row["kind"], row["question"], row["answers"], row["reference"])
        assert rendered.encode() == row["prompt"].encode()


@pytest.mark.parametrize(
    ("count", "word"),
    [
        (2, "two"),
        (12, "twelve"),
        (19, "nineteen"),
        (20, "twenty"),
        (21, "twenty-one"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (105, "one hundred five"),
        (342, "three hundred forty-two"),
        (1015, "one thousand fifteen"),
    ],
)
def test_any_number_of_answers_is_spelled_and_numbered(count: int, word: str) -> None:
    prompt = prompts.render("multi", "q", [f"<{number}>" for number in range(1, count + 1)], None)
    assert f"performance of {word} AI assistants" in prompt
    assert f"containing only {word} values" in prompt
    assert f"The {word} scores" in prompt
    listed = prompt.split("scores for Assistant ")[1].split(", respectively")[0]
    assert [int(part) for part in listed.replace(" and ", ", ").split(", ")] == list(range(1, count + 1))
    assert all(f"Assistant {number}'s Answer]\n<{number}>\n\n" in prompt for number in range(1, count + 1))


@given(st.text(), st.text(), st.text(), st.none() | st.text())
def test_text_of_records_is_never_read_as_a_template(question: str, first: str, second: str, reference: str | None) -> None:
    """Placeholders as texts, replaced afterwards, give the same prompt: nothing in a text changes anything around it."""
    marks = ("\ue000Q\ue000", "\ue000A\ue000", "\ue000B\ue000", "\ue000R\ue000")
    prompt = prompts.render("pair", marks[0], marks[1:3], None if reference is None else marks[3])
    pieces = {"Q": question, "A": first, "B": second, "R": reference or ""}
    expected = "".join(piece if place % 2 == 0 else pieces[piece] for place, piece in enumerate(prompt.split("\ue000")))
    assert prompts.render("pair", question, [first, second], reference) == expected


@pytest.mark.parametrize("kind", prompts.KINDS)
@pytest.mark.parametrize("reference", [None, "the truth"])
def test_every_prompt_ends_alike_whatever_the_record(kind: str, reference: str | None) -> None:
    assert prompts.render(kind, "q", ["a", "b"], reference).endswith(prompts.END + prompts.response_prefix(kind))


def test_braces_and_percent_signs_stay_as_they_are() -> None:
    prompt = prompts.render("pair", "{0} {question} %s", ["{answer}", "%(x)d"], "{}")
    assert all(text in prompt for text in ("{0} {question} %s", "{answer}", "%(x)d", "[Reference Answer]\n{}\n"))


def test_an_empty_reference_is_a_reference() -> None:
    assert "[Reference Answer]\n\n\n" in prompts.render("pair", "q", ["a", "b"], "")
    assert "[Reference Answer]" not in prompts.render("pair", "q", ["a", "b"], None)


@pytest.mark.parametrize("kind", prompts.KINDS)
def test_the_prompt_ends_with_the_prefix_of_the_response(kind: str) -> None:
    expected = "10" if kind in ("single", "multimodal") else ""
    assert prompts.response_prefix(kind) == expected
    assert prompts.render(kind, "q", ["a", "b"], "r").endswith("### Response:" + expected)


@pytest.mark.parametrize(("kind", "count"), [("pair", 1), ("pair", 3), ("single", 3), ("multi", 1), ("poem", 2)])
def test_a_wrong_kind_or_number_of_answers_raises(kind: str, count: int) -> None:
    with pytest.raises(ValueError, match=kind):
        prompts.render(kind, "q", ["a"] * count, None)


def test_what_is_no_model_imports_no_jax() -> None:
    package = Path(judgelm_jax.__file__).parent
    folders = ("records", "prompts", "tokens", "verdicts", "evaluation")
    files = [path.relative_to(package.parent) for folder in folders for path in sorted((package / folder).rglob("*.py"))]
    assert len(files) > 60
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]
    others = ("kinds", "judging.all_pairs", "judging.judgment_tally", "commands.evaluate", "commands.prepare")
    imports = "; ".join(f"import {name}" for name in (*names, *(f"judgelm_jax.{name}" for name in others)))
    check = f"{imports}; import sys; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
