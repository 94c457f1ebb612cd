"""Text: normalise, stream raw shards, judge quality. Knows no tokenizer."""
