from judgelm_jax.commands.rank import entry

raise SystemExit(entry())
