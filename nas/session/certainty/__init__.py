"""How sure the front is, and which trainings would make it surer."""
