"""How images and labels lie in files: decoding, folders, parquet shards, pickles."""
