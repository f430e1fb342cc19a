"""Figures as Plotly JSON, and raster images."""
