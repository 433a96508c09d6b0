"""Data sets: layouts on disk, packs, sampling, augmentation and the data modules that produce batches."""
