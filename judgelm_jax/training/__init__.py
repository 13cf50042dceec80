"""Fine-tuning a model into a judge: loss → step → loop. Only the commands import this package."""
