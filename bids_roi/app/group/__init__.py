"""The group level: participant outputs to group tables; no image is ever read."""
