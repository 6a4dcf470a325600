"""Arrays and series of a user's own: files of NumPy, PyTorch, aeon, sktime and the UCR archive."""
