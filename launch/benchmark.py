from judgelm_jax.commands.benchmark import entry

raise SystemExit(entry())
