"""The BatchNorm1d rows alone, with every setting and the bandwidth that treadle reaches.

python -m benches.peers.batch_norm [the options of python -m benches.peers]
"""

from __future__ import annotations

from benches.peers import report
from benches.peers.__main__ import main

if __name__ == "__main__":
    main(groups=("BatchNorm1d",), table=report.bandwidth_table)
