"""Arena-Hard: answers of one model as messages, and judgments as two games on a scale of five."""

from collections.abc import Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats.rows import as_text
from judgelm_jax.records.conversations import messages, rendered
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import question_identity


def is_answers(row: Record) -> bool:
    """Whether a row is an answer: it has `uid` and `messages`."""
    return "uid" in row and isinstance(row.get("messages"), list)


def answer(row: Record, turns: int | None) -> Record:
    """An answer in our form; the content of an assistant's message is a text or has it in `answer`.

    Raises an `InputError` without place.
    """
    if not is_answers(row):
        raise InputError("the fields 'uid' and 'messages' (a list) are not both there; this is no answer of Arena-Hard")
    users, answers = _side(row["messages"], "user"), _side(row["messages"], "assistant")
    if not answers or len(users) != len(answers):
        raise InputError("messages are not of user and assistant in turn; write the answer again")
    count = min(turns or len(answers), len(answers))
    result = {
        "question_id": row["uid"],
        "question_body": rendered(users[:count]),
        "text": rendered(answers[:count]),
        "model": row.get("model"),
    }
    return result | ({"conversation": messages(users[:count], answers[:count])} if count > 1 else {})


def _side(items: Sequence[object], role: str) -> list[str]:
    contents = [item.get("content") for item in items if isinstance(item, dict) and item.get("role") == role]
    texts = [content.get("answer") if isinstance(content, dict) else content for content in contents]
    if None in texts:
        raise InputError(f"a message of the {role} is null; generate the answer again")
    return [as_text(text)[0] for text in texts]


def judgment(row: Record) -> Record:
    """A row of `model_judgment/JUDGE/MODEL.jsonl`: the second answer is the model, the first the baseline.

    Game 1 shows the baseline as A, game 2 the model; a game that was not played, or has no verdict, is null. A difference of
    scores above 3 is written as much better (`>>`).
    """
    forward, back = {
        "both": (row.get("forward"), row.get("reversed")),
        "reversed": (None, row),
    }.get(str(row.get("order")), (row, None))
    return {
        "uid": question_identity(row),
        "category": row.get("category") or "hard_prompt",
        "judge": row.get("pred_model_id"),
        "model": row.get("answer2_model_id") or "answer2",
        "baseline": row.get("answer1_model_id") or "answer1",
        "games": [_game(forward, exchanged=False), _game(back, exchanged=True)],
    }


def _game(game: Record | None, exchanged: bool) -> Record | None:
    if game is None or game.get("winner") is None:
        return None
    winner, scores = game["winner"], game.get("scores")
    if winner == 0:
        return {"score": "A=B", "judgment": game.get("pred_text")}
    much = isinstance(scores, list) and len(scores) == 2 and abs(scores[0] - scores[1]) > 3
    first = (winner == 1) != exchanged
    sign = ">>" if much else ">"
    return {"score": f"A{sign}B" if first else f"B{sign}A", "judgment": game.get("pred_text")}
