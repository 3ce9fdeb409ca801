"""State history: every state that each connection had, as far as somebody looked.

`store` keeps the versions, `migrations` changes its tables, `thinning` decides which versions stay,
`timeline` says what moved from one version to the next, and `warnings` says what is odd about a
change, given the versions before it.
"""
