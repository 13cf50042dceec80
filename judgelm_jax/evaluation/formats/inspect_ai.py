"""inspect_ai: scores made elsewhere, for its scorer `precomputed_scores`."""

from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import identity

_VALUES = {2: 1.0, 0: 0.5, 1: 0.0}
_METADATA = ("winner", "scores", "status", "order", "consistent", "answer1_model_id", "answer2_model_id", "pred_model_id")


def score(row: Record) -> Record | None:
    """A score record; None without a verdict, which leaves the sample unscored.

    The value of a pair is that of the second answer against the first: 1 where it wins, 0.5 for a tie. The value of one answer
    is its score.
    """
    scores = row.get("scores")
    if row.get("winner") in _VALUES and row.get("winner") is not None:
        value, answer = _VALUES[row["winner"]], row.get("answer2_body")
    elif isinstance(scores, list) and len(scores) == 1:
        value, answer = scores[0], row.get("answer1_body")
    else:
        return None
    metadata = {name: row[name] for name in _METADATA if name in row}
    explanation = row.get("explanation") or row.get("pred_text")
    return {"id": identity(row), "value": value, "answer": answer, "explanation": explanation, "metadata": metadata}
