"""What to do about each reason under which a record is counted; for people, by the names of the counts."""

from __future__ import annotations

from collections.abc import Iterable

from persianmind.common.errors import nearest
from persianmind.recipe import Source
from persianmind.text.shapes import known_fields

_UTF8 = "convert the file: iconv -f CP1256 -t UTF-8 (or whatever it is written in)"
_AGAIN = "the file is damaged: fetch or pack it again; what stands before the damage is used"
_ADVICE = {
    "invalid_utf8": _UTF8,
    "utf16": "convert the file: iconv -f UTF-16 -t UTF-8",
    "invalid_json": "one JSON object per line, or one array of objects",
    "not_an_object": "each line must be one JSON object with named fields",
    "nan_or_infinity": "write null instead of NaN",
    "nested_too_deep": "flatten the record",
    "null_text": "records without text can be removed beforehand; they are counted and passed over",
    "wrong_type": "the field must hold text (or a list of turns)",
    "lone_surrogate": "text that was cut within a character; write the file anew from its origin",
    "control_characters": "binary data among the text; look at the file",
    "empty_text": "nothing stands in it; passed over",
    "no_letters": "marks and dashes alone teach nothing; passed over",
    "record_too_long": "a record over 32 MiB: split it",
    "decompression_bomb": "a line over 1 GiB: this is no text",
    **{f"{what}_{kind}": _AGAIN for what in ("truncated", "corrupt") for kind in ("gz", "bz2", "xz", "zst")},
    "corrupt_parquet": _AGAIN,
    "corrupt_arrow": _AGAIN,
    "corrupt_json": "no JSON from there on: is the file whole?",
    "corrupt_csv": "quotes are not paired from there on; write the table anew, or as jsonl",
    "other_columns": "a row has other fields than the first line names: quote what holds the delimiter",
    "one_object": "records must be lines or items of an array; of a list within: jq -c '.NAME[]' FILE.json",
    "unreadable_file": "the disk gives an error: copy the file to another one",
    "roles_out_of_turn": "system first, then user and assistant in turn",
    "unknown_role": "roles are system, user and assistant, under any of their common names",
    "no_answer": "a dialogue needs an answer of the assistant",
    "held_out_text": "the same text is held out for evaluation; meant so",
    "exact_duplicate": "meant so; quality.exact_duplicates=false keeps them",
    "near_duplicate": "meant so; quality.near_duplicate_threshold says how near",
    "mojibake": "read with a wrong code page somewhere on its way; fetch the original",
    "too_short": "quality.min_characters",
    "too_long": "quality.max_characters",
    "symbols": "quality.max_symbol_ratio",
    "repeated_lines": "quality.max_repeated_line_ratio",
    "other_language": "set the source's language, or quality.identify_language=false",
    "tool_turn": "dialogues with tools are not trained on",
    "tool_call": "dialogues with tools are not trained on",
    "content_that_is_no_text": "images and sounds are not trained on",
    "instruction_longer_than_sequence": "a longer data.seq_len, or seq_len of its stage, takes it",
    "special_token_in_text": "a special token's string within a turn would end it; take it out of the text",
    "turn_label_in_text": "a line begins as a turn does; write it otherwise, or data.prompt=chat_template",
    "token_across_prompt_and_answer": "the vocabulary joins label and answer: data.prompt=chat_template",
    "refused_by_chat_template": "the base's template refuses it; data.prompt=persianmind takes it",
}


def advice(reason: str, source: Source, fields: Iterable[str] | None = None) -> str:
    """What to do about a reason; "" where nothing can be said.

    fields: those of a record that was counted under it.
    """
    if reason != "missing_field":
        return _ADVICE.get(reason, "")
    names = [*(fields or ())]
    if source.kind == "parallel":
        return "a pair has the fields that `languages` names, itself or below `translation`"
    if source.kind == "instruction":
        return f"an instruction record has {known_fields()}; name other fields by sources.NAME.columns"
    return f"there is no {source.text_field!r}{nearest(source.text_field, names)}; set text_field"
