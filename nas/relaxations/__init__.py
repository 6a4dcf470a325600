"""How architecture parameters become the weights of a mixed operation."""
