"""The ordinary training loop and what every run needs: randomness, schedules, checkpoints, tracking."""

from nas.training.retraining import FinalSettings, Retraining
from nas.training.settings import TrainingSettings

__all__ = ["FinalSettings", "Retraining", "TrainingSettings"]
