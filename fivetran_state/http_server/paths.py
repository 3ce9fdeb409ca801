"""Addresses that more than one part of the server knows."""

METRICS = "/metrics"

STYLE, SCRIPT = "/page/style.css", "/page/script.js"
"""The files of the page. They contain only what is in this project's source."""
