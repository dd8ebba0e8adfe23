"""Policies without this package: ONNX, TorchScript, JSON."""
