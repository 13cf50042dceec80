from judgelm_jax.commands.judge import entry

raise SystemExit(entry())
