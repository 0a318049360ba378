"""What runs in a worker: packed entries in, through the filters, packed entries out."""

from bridge.pipeline.outcome import Outcome, Stream
from bridge.pipeline.pipeline import Pipeline
from bridge.pipeline.stage import Gather, Stage
from bridge.pipeline.tap import Tap

__all__ = ["Gather", "Outcome", "Pipeline", "Stage", "Stream", "Tap"]
