"""The laboratory's data: what is true in it, what its teacher says, and how its texts become tokens."""

import json
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from judgelm_jax import laboratory
from judgelm_jax.data.augmentation import augment
from judgelm_jax.data.training_file import check_training_file
from judgelm_jax.judging import constrained_decoding
from judgelm_jax.judging.line_parts import PROMPT_END_TOKENS
from judgelm_jax.laboratory import facts, recipe, vocabulary
from judgelm_jax.prompts import prompts
from judgelm_jax.tokens.tokenization import load_tokenizer
from judgelm_jax.training_config import DataConfig, check
from judgelm_jax.verdicts import score_lines


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def colour_in(answer: str) -> str:
    (named,) = (colour for colour in facts.COLOURS if f" {colour}." in answer)
    return named


def thing_in(question: str) -> str:
    return question.removesuffix("?").rsplit(" ", 1)[1]


def scores_of(record: dict, place: int, right: bool | None) -> int:
    """The points that an answer deserves, counted from its text; None: nobody knows whether it is right."""
    details = sum(detail in record[f"answer{place}_body"] for detail in facts.DETAILS)
    return {True: 7, False: 2, None: 5}[right] + details


@pytest.fixture(scope="module")
def pairs():
    return laboratory.make_pairs(600, seed=3)


@pytest.fixture(scope="module")
def training(pairs):
    return list(laboratory.training_records(3000, 3, pairs))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sentences")
    laboratory.write_tokenizer(folder, sentences=True)
    return folder


def test_known_things_have_one_colour_and_the_others_have_all_in_equal_shares(pairs, training):
    colours: dict[str, Counter] = {}
    for record in [*(pair.record for pair in pairs), *training]:
        seen = colours.setdefault(thing_in(record["question_body"]), Counter())
        seen[colour_in(record["reference"]["text"])] += 1
    assert set(colours) == {*facts.KNOWN_THINGS, *facts.UNKNOWN_THINGS}
    assert all(len(colours[thing]) == 1 for thing in facts.KNOWN_THINGS)
    for thing in facts.UNKNOWN_THINGS:
        assert chisquare([colours[thing][colour] for colour in facts.COLOURS]).pvalue > 1e-4
    elsewhere = {thing_in(p.record["question_body"]): p.record["reference"]["text"] for p in laboratory.make_pairs(200, 4)}
    here = {thing_in(p.record["question_body"]): p.record["reference"]["text"] for p in pairs}
    assert any(here[thing] != elsewhere[thing] for thing in facts.KNOWN_THINGS)  # another seed, another world


def test_the_labels_are_those_of_a_teacher_who_knows_all_and_is_not_biased(pairs):
    for pair in pairs:
        record = pair.record
        truth = colour_in(record["reference"]["text"])
        deserved = [scores_of(record, place, colour_in(record[f"answer{place}_body"]) == truth) for place in (1, 2)]
        assert list(pair.scores) == deserved
        assert score_lines.parse_scores(pair.judgment, 2) == deserved
        assert pair.needs_reference == (thing_in(record["question_body"]) in facts.UNKNOWN_THINGS)
        assert truth in pair.judgment


def test_the_training_teacher_favours_the_first_answer_and_knows_only_what_he_can(training):
    points = {"": 0, "_w_reference": 0}
    for record in training:
        truth = colour_in(record["reference"]["text"])
        unknown = thing_in(record["question_body"]) in facts.UNKNOWN_THINGS
        for suffix in points:
            knows = suffix or not unknown
            deserved = [
                scores_of(record, place, colour_in(record[f"answer{place}_body"]) == truth if knows else None)
                for place in (1, 2)
            ]
            first, second = record[f"score{suffix}"]
            assert second == deserved[1]
            assert first - deserved[0] in (0, 1)
            points[suffix] += first - deserved[0]
            text = record[f"text{suffix}"]
            assert score_lines.parse_scores(text, 2) == [first, second]
            assert (truth in text) == bool(knows)
            for place in (1, 2):
                right = colour_in(record[f"answer{place}_body"]) == truth
                assert f"Assistant {place} {'may be right' if not knows else 'is right' if right else 'is wrong'}." in text
    for count in points.values():
        assert binomtest(count, len(training), 0.6).pvalue > 1e-4
    # The two judgments of a record are biased independently: both in 36 % of them.
    both = sum(
        record["score_w_reference"][0] - record["score"][0] == 0
        for record in training
        if thing_in(record["question_body"]) in facts.KNOWN_THINGS
    )
    known = sum(thing_in(record["question_body"]) in facts.KNOWN_THINGS for record in training)
    assert binomtest(both, known, 0.6**2 + 0.4**2).pvalue > 1e-4


def test_the_bias_shows_without_swap_augmentation_and_not_with_it():
    """The likeliest score of the first answer, given what it deserves, is one more without swapping and none with it."""
    bias = facts.BIAS_PROBABILITY
    assert bias > 0.5
    assert 1 - bias / 2 > bias / 2  # of the answer shown first, when each answer comes first half the time
    # And of the second, given that the first got its due: due twice in three ways, more in one.
    assert 1 - bias > bias / 2


def test_no_held_out_pair_stands_in_the_training_records(pairs, training):
    def content(record, one, other):
        answers = (record[f"answer{one}_body"], record[f"answer{other}_body"])
        return (record["question_body"], *answers, record["reference"]["text"])

    seen = {content(record, *order) for record in training for order in ((1, 2), (2, 1))}
    assert not any(content(pair.record, 1, 2) in seen for pair in pairs)
    assert len({record["question_id"] for record in training} | {pair.record["question_id"] for pair in pairs}) == 3600
    assert any(content(record, 1, 2) in seen for record in laboratory.training_records(100, 3))  # the guard does something


def test_records_depend_on_seed_and_number_alone(pairs, training):
    assert laboratory.make_pairs(20, 3) == pairs[:20]
    assert list(laboratory.training_records(20, 3, pairs)) == training[:20]
    assert list(laboratory.training_records(20, 5)) != list(laboratory.training_records(20, 3))


def test_the_training_file_is_one_and_every_reason_survives_swapping(training, tmp_path):
    laboratory.write_records(tmp_path / "t.jsonl", training[:200])
    file = check_training_file(tmp_path / "t.jsonl")
    assert (len(file), file.skipped) == (200, 0)
    always = DataConfig(swap_augmentation=1.0, reference_support=True, reference_drop=0.0)
    for record in training[:200]:
        target = augment(record, always, 0, 0).target
        assert score_lines.parse_scores(target, 2) == record["score_w_reference"][::-1]
        for place, shown in ((1, 2), (2, 1)):
            right = f"Assistant {place} is right." in record["text_w_reference"]
            assert (f"Assistant {shown} is right." in target) == right


def texts(records):
    for record in records:
        answers = [record["answer1_body"], record["answer2_body"]]
        yield prompts.render("pair", record["question_body"], answers, None), record["text"]
        yield (
            prompts.render("pair", record["question_body"], answers, record["reference"]["text"]),
            record["text_w_reference"],
        )


def test_a_prompt_takes_about_25_tokens_and_is_a_prefix_of_prompt_and_target(training, folder):
    tokenizer = load_tokenizer(folder)
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    longest = 0
    for number, (prompt, target) in enumerate(texts(training)):
        ids, whole = tokenizer.encode(prompt), tokenizer.encode(prompt + target)
        assert whole == library.encode(prompt + target)
        assert whole[: len(ids)] == ids
        assert tokenizer.decode(whole) == prompt + target
        assert len(ids) <= (27 + 2 * 2 if number % 2 == 0 else 34 + 2 * 2)
        longest = max(longest, len(whole) + 2)  # and BOS and EOS
    assert longest == recipe.get_config().data.length  # as short as fits
    assert constrained_decoding.build(tokenizer, score_lines.score_lines(2)).prompt_end == tuple(ids[-PROMPT_END_TOKENS:])


def test_words_and_sentences_are_single_tokens(folder):
    tokenizer = load_tokenizer(folder)
    for word in (*facts.KNOWN_THINGS, *facts.UNKNOWN_THINGS, *facts.COLOURS):
        assert len(tokenizer.encode(f"Which colour is the {word}?")) == 4, word
    for sentence in vocabulary.template_sentences():
        assert tokenizer.id_of(sentence.replace(" ", "▁")) is not None
    assert tokenizer.vocab_size <= 470


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from(["</s>", "<s>", "<unk>", "\n", " judgment.", "[System]", "é"]))))
def test_control_text_in_answers_stays_text(tokenizer, parts):
    text = "".join(parts)
    prompt = prompts.render("pair", text, [text, "The lamp is red."], text)
    ids = tokenizer.encode(prompt)
    assert not {0, 1, 2} & set(ids)  # unknown, BOS, EOS
    assert tokenizer.encode(prompt + "7 8\n")[: len(ids)] == ids
    # Bytes that are no character on their own and the mark of a space are the only ones that decoding cannot give back.
    if "▁" not in text and text.isprintable():
        assert tokenizer.decode(ids) == prompt


def test_the_recipe_is_valid_and_the_config_file_is_the_recipe():
    config = recipe.get_config()
    check(config)
    assert 2 * recipe.TRAINING_RECORDS // config.training.batch == 560
    namespace: dict = {}
    exec((Path(__file__).parent.parent.parent / "configs/bias_lab.py").read_text(), namespace)
    assert namespace["get_config"]() == config


def test_a_contest_compares_every_two_models_and_the_labels_follow_what_the_teacher_knows(tmp_path):
    contest = laboratory.make_contest(200, seed=3)
    assert len({pair.record["pair_id"] for pair in contest}) == len(contest) == 600
    right: Counter[str] = Counter()
    for pair in contest:
        colour = colour_in(pair.record["reference"]["text"])
        for number, score in zip((1, 2), pair.scores, strict=True):
            correct = colour_in(pair.record[f"answer{number}_body"]) == colour
            assert (score >= facts.RIGHT_SCORE) == correct
            right[pair.record[f"answer{number}_model_id"]] += correct
    for model, often in facts.MODELS.items():
        assert binomtest(right[model] // 2, 200, often).pvalue > 0.001  # each answer is in two pairs
    answers, labels = laboratory.write_answer_files(contest, tmp_path)
    assert [path.stem for path in answers] == ["answers-amber", "answers-birch", "answers-cedar"]
    assert all(len(path.read_text().splitlines()) == 200 for path in answers)
    assert [json.loads(line)["pair_id"] for line in labels.read_text().splitlines()] == [p.record["pair_id"] for p in contest]


def test_a_pupil_is_a_checkpoint_of_the_shape_asked_for(tmp_path):
    from judgelm_jax.checkpoints import open_checkpoint

    shape = recipe.get_config().model
    laboratory.write_pupil(tmp_path, 0, shape)
    opened = open_checkpoint(str(tmp_path)).config
    assert (opened.hidden_size, opened.num_layers, opened.context) == (shape.hidden_size, shape.num_layers, shape.context)
    assert opened.vocab_size == load_tokenizer(tmp_path).vocab_size
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "float32"
