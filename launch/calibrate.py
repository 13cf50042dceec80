from judgelm_jax.commands.calibrate import entry

raise SystemExit(entry())
