"""Inspection of a trained model: loss landscape and feature visualization."""
