"""A ranking in words and as a table, for people."""

from typing import Any

from judgelm_jax.evaluation.plain_text import FOLLOWS_POSITION

_LEVEL = 1e-6  # log-odds: what rounding may add to equal strengths
SURE = 0.975  # of resamples: as sure as a 95 % interval that leaves 2.5 % on one side


def in_words(ranking: dict[str, Any]) -> str:
    """Which model is best and how sure that is, in a sentence or two; before, whether the verdicts follow the position."""
    models = [model["name"] for model in ranking["models"]]
    best, second = models[0], models[1]
    share = ranking["above"][best][second]
    often = "all" if share == 1 else f"{percent(share)} of"
    sure = f"{best} beats {second} in {often} resamples of the {ranking['clusters']} questions"
    level = [model["name"] for model in ranking["models"] if ranking["models"][0]["strength"] - model["strength"] < _LEVEL]
    if len(level) > 1:
        verdict = f"{_listed(level)} are level at the top: {sure}."
    elif share >= SURE:
        verdict = f"{best} is the best of {len(models)} models: {sure}."
    else:
        unsure = [name for name in models[1:] if ranking["above"][best][name] < SURE]
        verdict = f"{best} looks best, but that is not sure: {sure}; {_listed(unsure)} may be as good."
    told = {"orders": _orders_words, "positions": _positions_words}
    notes = [words(ranking[field]) for field, words in told.items() if field in ranking]
    if ranking["bounded"]:
        notes.append(
            "Some models never lost or never won, so their strengths are bounded by a virtual tie with each other model."
        )
    if ranking["cyclic_share"]:
        notes.append(f"In {percent(ranking['cyclic_share'])} of all threes on one question the verdicts go round in a circle.")
    if share < SURE and ranking["next_comparisons"]:
        pair = ranking["next_comparisons"][0]
        needed = "" if pair["needed"] is None else f" (about {pair['needed']} more would settle it, if they are as they look)"
        notes.append(f"Comparing {pair['models'][0]} with {pair['models'][1]} would help most{needed}.")
    warnings = [note for note in notes if note.endswith(FOLLOWS_POSITION)]
    return " ".join([*warnings, verdict, *(note for note in notes if note not in warnings)])


def _orders_words(orders: dict[str, Any]) -> str:
    pairs = sum(orders[name] for name in ("same", "first", "second", "undecided"))
    line = f"With the answers exchanged the judge names the same winner in {percent(orders['same'] / pairs)} of {pairs} pairs."
    return f"{line} {FOLLOWS_POSITION}" if orders["follow_position"] else line


def _positions_words(found: dict[str, Any]) -> str:
    line = (
        f"Of {found['records']} records that were shown in several orders, the same answers are best in all of them in "
        f"{percent(found['same_answers'] / found['records'])}, and the same position in "
        f"{percent(found['same_position'] / found['records'])}."
    )
    return f"{line} {FOLLOWS_POSITION}" if found["follow_position"] else line


def table(ranking: dict[str, Any]) -> str:
    """One line a model, best first."""
    width = max(5, *(len(model["name"]) for model in ranking["models"]))
    lines = [f"{'rank':>4}  {'model':<{width}}  {'win rate':<28}{'strength (log-odds)':<25}comparisons"]
    for model in ranking["models"]:
        low, high = model["rank_interval"]
        rate = f"{percent(model['win_rate'])} ({' to '.join(percent(x) for x in model['win_rate_interval'])})"
        strength = f"{model['strength']:+.2f} ({' to '.join(f'{x:+.2f}' for x in model['strength_interval'])})"
        lines.append(
            f"{model['rank']:>4}  {model['name']:<{width}}  {rate:<28}{strength:<25}{model['comparisons']:<6}"
            f"{'' if low == high else f'  rank {low} to {high}'}".rstrip()
        )
    lines.append("intervals: 95 %, by question")
    for name, effect in ranking["effects"].items():
        if effect is None:
            lines.append(f"effect of {name}: none, for all pairs are alike in it")
            continue
        low, high = effect["interval"]
        lines.append(f"effect of {name}: {effect['effect']:+.3f} log-odds for a deviation more ({low:+.3f} to {high:+.3f})")
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share with one decimal; never 0 or 100 unless it is."""
    if 0 < share < 0.0005 or 0.9995 < share < 1:
        return "<0.1 %" if share < 0.5 else ">99.9 %"
    return f"{100 * share:.1f} %"


def _listed(names: list[str]) -> str:
    shown = names[:3] + ([f"{len(names) - 3} more"] if len(names) > 3 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
