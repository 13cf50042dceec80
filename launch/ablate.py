from judgelm_jax.commands.ablate import entry

raise SystemExit(entry())
