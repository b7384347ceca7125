"""Optuna's tables of a study in a database: read in bulk, and written in few statements."""
