"""From records to judgments: batches, the compiled engine, and runs that survive a kill."""
