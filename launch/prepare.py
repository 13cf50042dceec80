from judgelm_jax.commands.prepare import entry

raise SystemExit(entry())
