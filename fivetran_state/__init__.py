"""Reads and safely changes the state of Fivetran connections."""

__version__ = "0.2.0.dev0"
