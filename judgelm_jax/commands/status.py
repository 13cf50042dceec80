"""says how far a run is: the judging or training that writes to a path, wherever it runs.

PATH is what the run was given as --output. Of a judging run it says for each shard how many records are done, on which host,
how many failed, the rate and the time that is left, and which shards have not begun; of a training run the steps, the loss
and the rate. It only reads files.

  judgelm-status judgments.jsonl
"""

import sys
from pathlib import Path

from absl import flags

from judgelm_jax import run_status
from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.storage.object_storage import scheme_of

FLAGS = flags.FlagValues()

PATH = flags.DEFINE_string(
    "path", None, "the --output of a run; may stand alone, without --path=", required=True, flag_values=FLAGS
)
JSON = flags.DEFINE_string("json", None, "also write this as JSON to this file", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the file of --json if it exists", flag_values=FLAGS)


def main() -> None:
    if scheme_of(PATH.value):
        raise InputError(f"{PATH.value}: runs in an object store cannot be followed; give the path of one on a file system")
    path = Path(PATH.value)
    check_json(JSON.value, OVERWRITE.value, [path])
    found = run_status.of(path)
    print("\n".join(run_status.lines(path, found)))
    write_json(JSON.value, {"command": "status", "path": str(path)} | found)


def entry() -> int:
    """The console command."""
    return run(main, FLAGS, "status", [one if one.startswith("-") else f"--path={one}" for one in sys.argv[1:]])
