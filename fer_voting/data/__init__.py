"""From what lies on a user's disk to batches: one file per data set, `base.py` for the flow they share."""
