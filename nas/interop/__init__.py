"""Genotypes and state dicts of other code bases, to and from this package; exports for other programs."""
