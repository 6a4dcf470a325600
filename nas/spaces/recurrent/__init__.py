"""The recurrent space: a language model around one cell."""
