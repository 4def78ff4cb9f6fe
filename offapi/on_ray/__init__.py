"""Label, grade and predict as steps of a Ray Data pipeline: what outgrows one machine.

Each class is given to `ray.data.Dataset.map_batches`; Ray makes one object a worker, which loads
its model once. Left out: clusters, scheduling and retries, which are Ray's own.
"""

from offapi.on_ray.grade import GradeBatches
from offapi.on_ray.label import LabelBatches
from offapi.on_ray.lines import write_lines
from offapi.on_ray.predict import PredictBatches

__all__ = ["GradeBatches", "LabelBatches", "PredictBatches", "write_lines"]
