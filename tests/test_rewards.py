"""Win rates as rewards: by hand with stub judges, with a real one, and in one step of TRL's GRPO trainer."""

from types import SimpleNamespace

import pytest

from judgelm_jax.rewards import first_wins, win_rate_reward


class StubJudge:
    """Longer wins, equal lengths tie; keeps what it was shown."""

    def __init__(self, probabilities=False):
        self.shown, self.probabilities = [], probabilities

    def judge(self, records):
        for record in records:
            self.shown.append(record)
            lengths = len(record["answer1_body"]), len(record["answer2_body"])
            winner = 0 if lengths[0] == lengths[1] else 1 if lengths[0] > lengths[1] else 2
            row = {"winner": winner}
            if self.probabilities:
                row["probabilities"] = {"1": 0.1, "2": 0.1, "0": 0.1} | {str(winner): 0.8}
            yield SimpleNamespace(row=row)


def test_rewards_are_mean_win_probabilities_within_a_group():
    judge = StubJudge()
    rewards = win_rate_reward(judge)(["a", "b", "a", "a", "b"], ["xxx", "y", "xx", "xxx", "yy"], other=[1, 2, 3, 4, 5])
    # a: "xxx" ties with "xxx" and beats "xx"; b: "yy" beats "y"
    assert rewards == [(1 + 0.5) / 2, 0.0, 0.0, (1 + 0.5) / 2, 1.0]
    assert len(judge.shown) == 3 + 1
    assert {row["question_body"] for row in judge.shown} == {"a", "b"}
    assert len({row["pair_id"] for row in judge.shown}) == 4


def test_probabilities_count_where_there_are_any():
    rewards = win_rate_reward(StubJudge(probabilities=True))(["a"] * 2, ["xxx", "x"])
    assert rewards == pytest.approx([0.8 + 0.05, 0.1 + 0.05])


def test_one_completion_alone_and_a_judgment_without_verdict_are_half():
    assert win_rate_reward(StubJudge())(["a"], ["x"]) == [0.5]
    assert first_wins({"winner": None}) == 0.5


def test_conversations_and_references_are_shown_as_text():
    judge = StubJudge()
    prompts = [[{"role": "user", "content": "Why?"}]] * 2 + [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Why?"}]
    ] * 2
    completions = [[{"role": "assistant", "content": text}] for text in ("a", "bb", "cc", "d")]
    rewards = win_rate_reward(judge, reference="gold")(prompts, completions, gold=["r", "r", None, None])
    assert rewards == [0.0, 1.0, 1.0, 0.0]
    assert judge.shown[0]["question_body"] == "Why?"
    assert judge.shown[0]["reference"] == "r"
    assert judge.shown[1]["question_body"] == "User: Hi\n\nAssistant: Hello\n\nUser: Why?"
    assert "reference" not in judge.shown[1]
    with pytest.raises(ValueError, match="no column 'gold'; it has other"):
        win_rate_reward(judge, reference="gold")(prompts, completions, other=[0] * 4)


@pytest.mark.slow
@pytest.mark.optimized
def test_one_step_of_grpo_with_a_real_judge(tmp_path, laboratory_checkpoint, one_device):
    trl = pytest.importorskip("trl", minversion="1.16")
    import datasets
    import torch
    import transformers

    from judgelm_jax.judging.config import JudgeConfig
    from judgelm_jax.judging.judge import Judge

    judge = Judge.load(str(laboratory_checkpoint), one_device, JudgeConfig(mode="distribution", orders="both", dtype="float32"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(laboratory_checkpoint)
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    pupil = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
        )
    )
    seen = []
    reward = win_rate_reward(judge)

    def kept(**arguments):
        seen.append(reward(**arguments))
        return seen[-1]

    trainer = trl.GRPOTrainer(
        model=pupil,
        reward_funcs=kept,
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["Name a colour.", "Name a river."]}),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path / "grpo"),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=6,
            max_steps=1,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
        ),
    )
    trainer.train()
    rewards = seen[0]
    assert len(rewards) == 4
    assert sum(rewards) == pytest.approx(2)  # of four completions of one prompt, each pair shares one win
    assert len(set(rewards)) > 1
    assert trainer.state.log_history[0]["reward"] == pytest.approx(0.5)
