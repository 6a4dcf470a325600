"""How a run is shown: tables in the terminal, drawings of architectures, the page of the run."""
