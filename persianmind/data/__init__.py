"""Data: pack, token shards, global order, mixture, instruction rows. Knows text and a tokenizer."""
