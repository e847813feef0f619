"""Grid that the parameters of a coefficient's distribution are rounded to for coding. Imports no torch.

A coefficient's mean m is a multiple of 1/8 step, log2 of its scale s of 1/4, the logit of its spike w of 1/2. Above
`SPIKE_LIMIT` there is no spike. The distribution itself: models/codec/distribution.py.
"""

from __future__ import annotations

SPIKE_SCALE = 1 / 8  # s0, in quantisation steps
LOG_SCALE_LOW, LOG_SCALE_HIGH = -4.75, 6.0  # range of log2 s
SPIKE_LIMIT = 3.0  # log2 s from which on w = 0
SPIKE_LOW, SPIKE_HIGH = -3.0, 4.5  # range of logit w
MEAN_UNITS, SCALE_UNITS, SPIKE_UNITS = 8, 4, 2  # grid points for each unit of m, log2 s and logit w
