"""Sources: the data of a recipe as the commands use them, whatever they are."""

from diffnas.data.tensors import Samples
from diffnas.pipeline.sources.base import Reading, Source, TestSet, Training
from diffnas.pipeline.sources.cosine import CosineTraining
from diffnas.pipeline.sources.tasks import task_of, without_smoothing
from diffnas.pipeline.sources.tensors import TensorSource, TensorTest, TensorTraining
from diffnas.pipeline.supernet_weights import ConstantSGD, CosineSGD, SupernetWeights

__all__ = [
    "ConstantSGD",
    "CosineSGD",
    "CosineTraining",
    "Reading",
    "Samples",
    "Source",
    "SupernetWeights",
    "TensorSource",
    "TensorTest",
    "TensorTraining",
    "TestSet",
    "Training",
    "task_of",
    "without_smoothing",
]
