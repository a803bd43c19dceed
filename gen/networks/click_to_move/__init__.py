"""Networks of Click to Move."""
