from judgelm_jax.commands.train import entry

raise SystemExit(entry())
