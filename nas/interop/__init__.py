"""Other people's genotypes and state dicts, to and from this package's."""
