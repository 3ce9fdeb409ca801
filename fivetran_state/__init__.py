"""Reads and safely changes the state of Fivetran connections."""

__version__ = "0.1.0"
