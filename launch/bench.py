from judgelm_jax.commands.bench import entry

raise SystemExit(entry())
