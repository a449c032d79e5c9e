"""What several test files share: data, oracles, ways to call the app."""
