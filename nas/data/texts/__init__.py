"""Texts of a user's own: running text for a language model, or texts in a folder per class."""
