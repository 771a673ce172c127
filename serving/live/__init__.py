"""What an installation does at this moment: workers, live ranks, dead letters, and streams of changes."""
