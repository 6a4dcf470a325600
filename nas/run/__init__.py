"""A run and its folder: configuration, checkpoints, stopping, failures, randomness, tracking, progress."""

from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings

__all__ = ["Randomness", "RunFolder", "TrackingSettings"]
