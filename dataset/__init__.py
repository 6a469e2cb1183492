"""Training dataset: profiles, the coach policies that label them, and the files written."""
