"""Where a run's curves go: TensorBoard, CSV, Weights & Biases, SwanLab."""
