"""Studies as other programs show them."""
