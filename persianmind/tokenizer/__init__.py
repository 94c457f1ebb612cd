"""The one wrapper of a tokenizer folder: ids and where they stand, documents, special tokens, fast path."""

from persianmind.language.hard_strings import HARD_STRINGS
from persianmind.tokenizer.fast import FastEncoder
from persianmind.tokenizer.folder import FolderTokenizer, tokenizer_fingerprint
from persianmind.tokenizer.models import (
    MAX_TOKENIZER_BYTES,
    LocatedTokens,
    Tokens,
    check_tokenizer_size,
    encode_json,
    is_tiktoken,
    tiktoken_hint,
)
from persianmind.tokenizer.panic import panics_named

__all__ = [
    "HARD_STRINGS",
    "MAX_TOKENIZER_BYTES",
    "FastEncoder",
    "FolderTokenizer",
    "LocatedTokens",
    "Tokens",
    "check_tokenizer_size",
    "encode_json",
    "is_tiktoken",
    "panics_named",
    "tiktoken_hint",
    "tokenizer_fingerprint",
]
