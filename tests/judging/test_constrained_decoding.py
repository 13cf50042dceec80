import itertools

import pytest
import tokenizers

from judgelm_jax.errors import InputError
from judgelm_jax.judging import constrained_decoding
from judgelm_jax.judging.line_parts import line_parts
from judgelm_jax.judging.trees import Trees
from judgelm_jax.prompts import prompts
from judgelm_jax.tokens.tokenization import load_tokenizer
from judgelm_jax.verdicts import score_lines
from judgelm_jax.verdicts.score_lines import LineForm

LINES = tuple(score_lines.score_lines(2))


def walk(tree, node=None, begun=()):
    """Every path through the tree, as tuples of tokens."""
    node = tree.root if node is None else node
    if node == 0:
        yield begun
        return
    for token, child in zip(tree.tokens[node], tree.children[node], strict=True):
        if token >= 0:
            yield from walk(tree, child, (*begun, int(token)))


@pytest.fixture(scope="module", params=["laboratory", "llama", "stories", "bytes", "merged digits"])
def tokenizer(request, laboratory_checkpoint, tmp_path_factory):
    if request.param == "laboratory":
        return load_tokenizer(laboratory_checkpoint)
    if request.param in ("llama", "stories"):
        shared = request.getfixturevalue("shared")
        folder = {"llama": "tokenizers/llama_hf", "stories": "checkpoints/stories260K-hf"}[request.param]
        return load_tokenizer(shared / "data" / folder)
    folder = tmp_path_factory.mktemp("json")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = byte_level
    trained.decoder = tokenizers.decoders.ByteLevel()
    # `merged digits` learns "10" and " 10" as one token each, as Llama 3 and GPT vocabularies have them.
    texts = ["10 10 10.0 9.5\n"] * 50 if request.param == "merged digits" else []
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    trained.train_from_iterator(texts, trainer)
    trained.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def tree(tokenizer):
    return constrained_decoding.build(tokenizer, LINES)


def test_the_paths_are_the_tokens_of_every_line_behind_a_real_prompt(tokenizer, tree):
    prompt = prompts.render("pair", "How high is the Eiffel tower? 10 9\n", ["324 m", "10"], "330 m")
    ids = tokenizer.encode(prompt)
    expected = set()
    for line in LINES[::7]:
        both = tokenizer.encode(prompt + line)
        assert both[: len(ids)] == ids
        expected.add(tuple(both[len(ids) :]))
    paths = set(walk(tree))
    assert len(paths) == len(LINES) == 112 * 112
    assert expected <= paths
    assert tree.longest == max(map(len, paths))
    assert tuple(ids[-len(tree.prompt_end) :]) == tree.prompt_end


def test_a_path_reads_as_its_line(tokenizer, tree):
    for path in itertools.islice(walk(tree), 0, None, 131):
        assert tokenizer.decode(path).strip() + "\n" in LINES


def test_equal_continuations_are_folded(tree):
    assert len(tree.tokens) < 60  # not 12,544 leaves


def test_a_tree_composed_of_segments_is_that_of_all_lines(tokenizer, tree):
    pair = constrained_decoding.compose(line_parts(tokenizer, LineForm(prompts.END, "", score_lines.SCORE_STRINGS, 2)), 2)
    assert set(walk(pair)) == set(walk(tree))
    assert (len(pair.tokens), pair.longest, pair.prompt_end) == (len(tree.tokens), tree.longest, tree.prompt_end)
    few = ("1", "1.5", "10", "7")
    for count, begins in ((1, ""), (3, ""), (3, " ")):
        form = LineForm(prompts.END + ("10" if begins else ""), begins, few, count)
        composed = constrained_decoding.compose(line_parts(tokenizer, form), count)
        listed = constrained_decoding.build(tokenizer, form.lines(), form.end)
        assert set(walk(composed)) == set(walk(listed))
        assert (len(composed.tokens), composed.longest) == (len(listed.tokens), listed.longest)


def test_lines_of_many_scores_are_composed(tokenizer):
    count = 300  # a tree of 112 to the power of 300 lines, and deeper than Python's stack
    form = LineForm(prompts.END, "", score_lines.SCORE_STRINGS, count)
    tree = constrained_decoding.compose(line_parts(tokenizer, form), count)
    assert len(tree.tokens) < 30 * count
    line = " ".join(["10.0", "7", "0.5"] * (count // 3)) + "\n"
    end = tokenizer.encode(prompts.END)
    node = tree.root
    for token in tokenizer.encode(prompts.END + line)[len(end) :]:
        (choice,) = (tree.tokens[node] == token).nonzero()[0]
        node = tree.children[node, choice]
    assert node == 0


def test_a_tokenizer_that_merges_scores_with_each_other_is_refused(tmp_path):
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.decoder = tokenizers.decoders.Fuse()
    alphabet = [chr(code) for code in range(32, 127)] + ["\n"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=120, initial_alphabet=alphabet, special_tokens=["</s>"])
    trained.train_from_iterator(["8 9\n"] * 20, trainer)
    trained.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer.encode("8 9")) == 1
    with pytest.raises(InputError, match="merges scores with what stands beside them"):
        line_parts(tokenizer, LineForm(prompts.END, "", score_lines.SCORE_STRINGS, 3))


def test_a_tokenizer_that_merges_prompt_and_score_is_refused(tmp_path):
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.decoder = tokenizers.decoders.Fuse()  # puts nothing between tokens
    alphabet = [chr(code) for code in range(32, 127)] + ["\n"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=100, initial_alphabet=alphabet, special_tokens=["</s>"])
    trained.train_from_iterator([":8"] * 20, trainer)
    trained.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer.encode(":8")) == 1
    with pytest.raises(InputError, match="merges the end of the prompt"):
        constrained_decoding.build(tokenizer, LINES)


@pytest.mark.parametrize("unknown", [None, "<unk>"])
@pytest.mark.parametrize("words", [("8", "\u4e2d"), ("\u4e2d", "\u6587"), ("8", "9\u4e2d")])
def test_words_that_the_tokenizer_does_not_know_are_refused(tmp_path, unknown, words):
    """A tokenizer without bytes leaves them out, or writes one token for all."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=unknown))
    trained.decoder = tokenizers.decoders.Fuse()
    alphabet = [chr(code) for code in range(32, 127)] + ["\n"]
    special = ["</s>", *([unknown] if unknown else [])]
    trained.train_from_iterator([], tokenizers.trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=special))
    trained.save(str(tmp_path / "tokenizer.json"))
    known = Trees(load_tokenizer(tmp_path), "distribution", "mine.toml").of(LineForm(" so:", " ", ("8", "9"), 1))
    assert len(known.paths) == 2
    for mode in ("scores", "distribution"):
        trees = Trees(load_tokenizer(tmp_path), mode, "mine.toml")
        with pytest.raises(InputError, match=r"--preset=mine.toml: the tokenizer cannot write the verdict '9?\u4e2d'; choose"):
            trees.of(LineForm(" so:", " ", words, 1))
