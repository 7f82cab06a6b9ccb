"""A person who does not exist, for demonstrations and tests with known truth."""
