"""Trials in tables: as data frames and CSV files, as the page's columns, and by what ended them."""
