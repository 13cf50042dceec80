"""LMArena: battles of two models with a winner, the input of Bradley-Terry and Elo tools."""

from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import question_identity

_WINNERS = {1: "model_a", 2: "model_b", 0: "tie"}


def battles(row: Record) -> list[Record]:
    """A battle for each game that has a verdict, with the models as they were shown: two of a judgment in both orders."""
    models = [row.get("answer1_model_id") or "answer1", row.get("answer2_model_id") or "answer2"]
    shown = {
        "forward": row.get("forward") if row.get("order") == "both" else row if row.get("order") != "reversed" else None,
        "reversed": row.get("reversed") if row.get("order") == "both" else row if row.get("order") == "reversed" else None,
    }
    made = []
    for order, game in shown.items():
        if not game or game.get("winner") not in _WINNERS:
            continue
        winner = game["winner"]
        first, second = models if order == "forward" else reversed(models)
        place = winner if order == "forward" or not winner else 3 - winner
        battle = {"question_id": question_identity(row), "model_a": first, "model_b": second, "winner": _WINNERS[place]}
        made.append(battle | {"judge": row.get("pred_model_id"), "tstamp": row.get("tstamp")})
    return made
