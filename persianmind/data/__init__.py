"""Data: pack, token shards, global order, mixture, instruction records. Knows text and a tokenizer."""
