"""Renderers of the report: HTML, Markdown, SVG, JSON."""
