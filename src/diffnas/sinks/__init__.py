"""Programs that also show metrics: TensorBoard, Weights & Biases, MLflow.

Each is sent the rows of metrics.jsonl, which stays the one record: what a program lacks is sent again when a run is resumed.
"""
