"""What came of it: evaluation, the supervised baseline, pictures and the run folder."""
