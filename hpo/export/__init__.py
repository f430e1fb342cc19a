"""Trained models outside their study: writing, ONNX, model card, prediction."""
