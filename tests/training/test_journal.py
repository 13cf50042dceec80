import json

from judgelm_jax.training.journal import METRICS_FILE, Journal

LINE = {"loss": 1.5, "gradient_norm": 2.0, "learning_rate": 1e-3, "tokens_per_second": 10.0, "utilization": 0.5}
LINE |= {"memory_bytes": 10**9}


def lines(folder):
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def test_going_on_takes_back_what_was_written_after_the_checkpoint(tmp_path):
    journal = Journal(tmp_path, 0, 10)
    for step in range(1, 6):
        journal.write(step, "train", LINE | {"loss": float(step)})
    journal.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 6, "lo')  # a kill in the middle of a line
    again = Journal(tmp_path, 3, 10)
    again.write(4, "train", LINE | {"loss": 40.0})
    again.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_messages_and_the_bar_go_to_stderr(tmp_path, capsys):
    journal = Journal(tmp_path, 0, 2)
    journal.say("something happened")
    journal.write(1, "train", LINE | {"loss": None, "utilization": None})
    journal.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert "something happened" in err
    assert lines(tmp_path)[0]["loss"] is None
