"""The BatchNorm1d rows alone: `python -m benches.peers.batch_norm`, with the options of `python -m benches.peers`."""

from __future__ import annotations

from benches.peers.__main__ import main

if __name__ == "__main__":
    main(groups=("BatchNorm1d",))
