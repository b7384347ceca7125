"""Exports of one trial: a module for each kind of file, and the proof that what was written gives the same model."""
