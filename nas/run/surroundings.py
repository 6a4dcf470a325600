"""What a machine may lack that no run depends on: a reader of the output, a temporary folder, caches, a locale."""


def go_on_without() -> None:
    """Let this process do without what is missing around it, and say so once."""
