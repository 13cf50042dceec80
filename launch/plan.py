from judgelm_jax.commands.plan import entry

raise SystemExit(entry())
