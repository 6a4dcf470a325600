"""The weight step, the losses, the schedules, and the retraining."""

from nas.training.retraining import FinalSettings, Retraining
from nas.training.settings import TrainingSettings

__all__ = ["FinalSettings", "Retraining", "TrainingSettings"]
