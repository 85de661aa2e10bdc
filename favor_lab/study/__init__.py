"""What came of it, as numbers: evaluation, comparison, the supervised baseline, explanations."""
