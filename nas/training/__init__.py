"""The ordinary training loop and what every run needs: randomness, schedules, checkpoints, tracking."""
