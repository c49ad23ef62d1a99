"""Image and label files: decoding, class folders, parquet shards, pickled arrays."""
