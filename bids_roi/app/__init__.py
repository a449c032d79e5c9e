"""What happens to a dataset: plan, participant level, group level, demo."""
