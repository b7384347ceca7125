"""What came out where the models of a search were trained to the end."""
