"""MT-Bench (FastChat): answers of one model, `question.jsonl`, and pairwise judgments."""

from collections.abc import Mapping, Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats.rows import Row, as_text
from judgelm_jax.records.conversations import messages, rendered
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import question_identity


def is_answers(row: Record) -> bool:
    """Whether a row is an answer: it has `choices`, each with `turns`."""
    return isinstance(row.get("choices"), list)


def questions(rows: Sequence[Row]) -> dict[str, Record]:
    """The rows of `question.jsonl` by id: `turns`, optional `reference` (one a turn) and `category`.

    Raises:
      InputError: names the row.
    """
    found: dict[str, Record] = {}
    for place, row in rows:
        try:
            if not _texts(row.get("turns")):
                raise InputError("turns is no list of texts; this is no question.jsonl of MT-Bench")
            found[question_identity(row)] = row
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    return found


def answer(row: Record, asked: Mapping[str, Record], turns: int | None) -> Record:
    """An answer in our form, with question and answer rendered turn by turn, up to turn `turns` (None: all).

    The conversation itself is in `conversation`. The first choice counts. The model is named by its file, as FastChat does
    it: `model_id` may be an internal name. Raises an `InputError` without place.
    """
    key = question_identity(row)
    if key not in asked:
        raise InputError(f"the question {key!r} is in no file of --questions; give MT-Bench's question.jsonl there")
    question = asked[key]
    answers = _texts(_first_turns(row))
    if not answers or len(answers) > len(question["turns"]):
        raise InputError("choices holds no list of texts as turns, or more than the question has; generate the answer again")
    count = min(turns or len(answers), len(answers))
    users, answers = question["turns"][:count], answers[:count]
    result: Record = {
        "question_id": row["question_id"],
        "question_body": rendered(users),
        "text": rendered(answers),
    }
    if "category" in question:
        result["category"] = question["category"]
    references = _texts(question.get("reference"))
    if references:
        result["reference"] = {"text": rendered(references[:count])}
    return result | ({"conversation": messages(users, answers)} if count > 1 else {})


def reference(row: Record, turns: int | None) -> str | None:
    """The text of a row of `reference_answer`, rendered as an answer is; None where the row is none."""
    texts = _texts(_first_turns(row))
    return rendered(texts[: turns or len(texts)]) if texts else None


def _first_turns(row: Record) -> object:
    choices = row.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first.get("turns") if isinstance(first, dict) else None


def _texts(value: object) -> list[str]:
    """A list of texts; later versions write `{"content": …}` for a text. Empty where it is none, or one is null."""
    if not isinstance(value, list):
        return []
    contents = [item.get("content") if isinstance(item, dict) else item for item in value]
    return [] if None in contents else [as_text(content)[0] for content in contents]


def judgment(row: Record) -> Record:
    """A row of `model_judgment/…_pair.jsonl`, as FastChat's `show_result.py` reads it: the winner of both games.

    A row of one order has that verdict as both games. `error` stands for a game without verdict.
    """
    games = [row.get("forward") or row, row.get("reversed") or row]
    names: dict[object, str] = {1: "model_1", 2: "model_2", 0: "tie"}
    winners = [names.get(game.get("winner"), "error") for game in games]
    return {
        "question_id": row["question_id"],
        "model_1": row.get("answer1_model_id") or "answer1",
        "model_2": row.get("answer2_model_id") or "answer2",
        "g1_winner": winners[0],
        "g2_winner": winners[1],
        "judge": [row.get("pred_model_id"), "pair"],
        "g1_judgment": games[0].get("pred_text"),
        "g2_judgment": games[1].get("pred_text"),
        "turn": row.get("turn", 1),
        "tstamp": row.get("tstamp"),
    }
