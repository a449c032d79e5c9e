"""The participant level: plan, runs, results, progress."""
