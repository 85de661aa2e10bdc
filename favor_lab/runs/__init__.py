"""One run from start to report, and many runs side by side."""
