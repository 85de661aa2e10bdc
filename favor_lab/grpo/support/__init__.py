"""What the loop needs that is not GRPO: settings, records, the rows of a rollout, checkpoints, the clock, signals."""
