"""The group level: from participant outputs to group tables."""
