"""Several runs side by side: what each found for how much, how sure it is, and in what they differ."""
