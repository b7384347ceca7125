"""What a search has learned: which genes move accuracy at equal cost."""
