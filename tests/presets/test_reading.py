"""Presets as files: those that are shipped, and what is wrong with others, in one line that names file and field."""

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.presets import NAMES, load_preset

GOOD = 'template = "Q: {question} A: {answer1} B: {answer2} Better:"\n[labels]\nA = 1\nB = 2\n'


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_can_be_read(name):
    preset = load_preset(name)
    assert preset.name == name
    assert preset.answers == (1 if preset.name in ("auto_j_single", "prometheus_absolute") else 2)


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.toml").write_text(GOOD)
    preset = load_preset(str(tmp_path / "mine.toml"))
    assert (preset.name, preset.words, preset.winners, preset.marker) == ("mine", ("A", "B"), (1, 2), None)
    (tmp_path / "mine.toml").write_text(GOOD + "# other bytes\n")
    assert load_preset(str(tmp_path / "mine.toml")).sha256 != preset.sha256


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("template = ", "is no TOML"),
        ("\ufeff[", "is no TOML"),
        (GOOD.replace("template", "tmplate"), "'tmplate' is not known"),
        (GOOD.replace("{question}", "{question.__class__}"), "placeholder {question.__class__}"),
        (GOOD.replace("{question}", "{}"), "placeholder {}"),
        (GOOD.replace("{question}", "{{question}}"), "a brace that belongs to no placeholder"),
        (GOOD.replace("{question}", "{question} {"), "a brace that belongs to no placeholder"),
        (GOOD.replace("{question}", "{question} }"), "a brace that belongs to no placeholder"),
        (GOOD.replace("{question}", "{Question}"), "placeholder {Question}"),
        (GOOD.replace("{answer1}", "{answer1} {question_body}"), "placeholder {question_body}; write {question}"),
        (GOOD.replace("{answer1}", "{answer1} {answer2_body}"), "placeholder {answer2_body}; write {answer2}"),
        *(
            (GOOD.replace("{answer1}", f"{{answer1}} {{{name}}}"), f"{{{name}}}, which")
            for name in ("answers", "count", "numbers")
        ),
        (GOOD.replace("A = 1", f"{'A' * 101} = 1"), "more than 100 characters"),
        (f'ending = "{"." * 101}"\n' + GOOD, "more than 100 characters"),
        (GOOD.replace(" Better:", ""), "ends with a placeholder"),
        (GOOD.replace("{question}", "what"), "lacks {question}"),
        (GOOD.replace("{answer2}", "{answer3}"), "{answer1} and {answer2}; no more"),
        (GOOD.replace("A = 1", "A = 3"), "1, 2, or 0 for a tie"),
        (GOOD.replace("A = 1", "A = true"), "1, 2, or 0 for a tie"),
        (GOOD.replace("A = 1", "A = 2"), "1 and 2 have to be there"),
        (GOOD.replace("A = 1", '"" = 1'), "is empty, or begins"),
        (GOOD.replace("A = 1", '"B\\n" = 1'), "is empty, or begins"),
        ('scale = "1:5:1"\n' + GOOD, "exactly one of"),
        (GOOD.partition("[")[0], "exactly one of"),
        ('template = "{question} {answer1} ="\nscale = "1:1:1"', "'scale' is '1:1:1'"),
        ('template = "{question} {answer1} ="\nscale = "5"', "'scale' is '5'"),
        ('template = "{question} {answer1} ="\nscale = "1:10:1"\nending = ""', "'10' begins as another one does"),
        ('template = "{question} {answer1} ="\n[labels]\nA = 1\nB = 2', "the template shows 1"),
        ('verdict = "last"\n' + GOOD, "'verdict' is 'last'"),
        ('verdict = "after"\n' + GOOD, "'marker' must say"),
        ('marker = "So"\n' + GOOD, "go with verdict"),
        ("chat_template = 1\n" + GOOD, "'chat_template' is 1, which has the wrong type"),
        ('verdict = "after"\nmarker = "So"\nreason_tokens = 0\n' + GOOD, "'reason_tokens' is 0"),
        ('system = "Be fair."\n' + GOOD, "'system' is shown nowhere"),
        ("template = []\n[labels]\nA = 1\nB = 2", "'template' is missing"),
        ('template = ["{question} {answer1} =", "{question} {answer1} {answer2} ="]\n[labels]\nA = 1\nB = 2', "some two"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, text, expected):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        load_preset(str(path))
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "\n" not in message


def test_no_such_preset(tmp_path):
    with pytest.raises(InputError, match="the presets are judgelm, auto_j"):
        load_preset("autoj")
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        load_preset(str(tmp_path / "none.toml"))
