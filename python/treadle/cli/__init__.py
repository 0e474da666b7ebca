"""The command `treadle`: train, predict, info."""
