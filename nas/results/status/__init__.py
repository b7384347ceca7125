"""Where a search stands, read from its storage by a program that takes no part in it."""
