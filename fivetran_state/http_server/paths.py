"""Addresses that more than one part of the server knows."""

METRICS = "/metrics"
ERRORS = "/docs/errors"
"""The page that explains every type of problem."""

STYLE, SCRIPT = "/page/style.css", "/page/script.js"
"""The files of the page. They contain only what is in this project's source."""
SIGN_IN = "/sign-in"
SIGN_IN_AT_ISSUER = "/sign-in/issuer"
SIGN_IN_CALLBACK = "/sign-in/callback"
"""The issuer sends people back to the last of these. Operators register it there."""
