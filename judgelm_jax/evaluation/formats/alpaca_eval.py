"""AlpacaEval: outputs of one model, and annotations of pairs of outputs."""

from collections.abc import Sequence

from judgelm_jax.evaluation.benchmarks.benchmark import require, text_id, texts_of
from judgelm_jax.records.json_lines import Record


def is_answers(row: Record) -> bool:
    """Whether a row is an output: it has `instruction` and `output`."""
    return "instruction" in row and "output" in row


def answer(row: Record) -> Record:
    """An output in our form; the id of a question is made of its text. Raises an `InputError` without place."""
    require(row, "output")
    (instruction,), _ = texts_of(row, "instruction")
    result = {
        "question_id": text_id(instruction),
        "question_body": instruction,
        "text": row["output"],
        "model": row.get("generator"),
    }
    return result | ({"dataset": row["dataset"]} if "dataset" in row else {})


def annotation(row: Record) -> Record:
    """A row of `annotations.json`, as `alpaca_eval` reads it.

    The preference is 1 where the first output wins, 2 where the second does, 1.5 for a tie, null without verdict; of a
    distribution it is 1 + P(second wins) + P(tie) / 2.
    """
    preferences: dict[object, float] = {1: 1.0, 2: 2.0, 0: 1.5}
    preference = preferences.get(row.get("winner"))
    chances = row.get("probabilities")
    if isinstance(chances, dict) and preference is not None:
        preference = 1 + chances["2"] + chances["0"] / 2
    return {
        "instruction": row.get("question_body"),
        "output_1": row.get("answer1_body"),
        "generator_1": row.get("answer1_model_id") or "answer1",
        "output_2": row.get("answer2_body"),
        "generator_2": row.get("answer2_model_id") or "answer2",
        "dataset": row.get("dataset", "judgelm_jax"),
        "annotator": row.get("pred_model_id"),
        "preference": preference,
        "raw_completion": row.get("pred_text"),
    }


def pair_answers(row: Record, position: int) -> Sequence[Record]:
    """The two answers of a row with `output_1` and `output_2`: of LLMBar's `dataset.json` or of AlpacaEval's annotations.

    The id of a question is made of its text and of the position of the row, for texts may come more than once. Raises an
    `InputError` without place.
    """
    field = "instruction" if "instruction" in row else "input"
    (question,), _ = texts_of(row, field)
    texts_of(row, "output_1", "output_2")
    return [
        {
            "question_id": f"{position}-{text_id(question)}",
            "question_body": question,
            "text": row[f"output_{number}"],
            "model": row.get(f"generator_{number}") or f"output_{number}",
        }
        for number in (1, 2)
    ]


def is_pair(row: Record) -> bool:
    """Whether a row holds two answers: it has `output_1` and `output_2`."""
    return "output_1" in row and "output_2" in row and ("instruction" in row or "input" in row)
