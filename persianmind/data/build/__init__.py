"""Raw records to token shards."""
