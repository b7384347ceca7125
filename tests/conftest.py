"""What holds for every test."""

from hypothesis import settings

# No deadline: a property is never timed. The same examples in every run, so that a failure comes again;
# `pytest --hypothesis-profile explore` looks further.
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("repeat")
