"""What a changed key of the recipe does to a run that was begun: one decision for every key there is."""

from __future__ import annotations

from enum import StrEnum


class Effect(StrEnum):
    """FREE: it changes no number that is trained, and takes effect from the next start on.

    RESULTS: the same, and a finished run does its end again: export, account, card, report. ROUNDING: the
    same samples and targets, rates and arithmetic; sums are added up in another order, as on another number
    of ranks. PATIENCE: FREE, unless `evaluate.patience` ends stages by what is measured. STEPS: it decides
    what is trained, and is fixed once steps were done. TEXT: fixed once a vocabulary was learnt, or shards
    were built.
    """

    FREE = "free"
    RESULTS = "results"
    ROUNDING = "rounding"
    PATIENCE = "patience"
    STEPS = "steps"
    TEXT = "text"


_FREE, _RESULTS, _ROUNDING = Effect.FREE, Effect.RESULTS, Effect.ROUNDING
_PATIENCE, _STEPS, _TEXT = Effect.PATIENCE, Effect.STEPS, Effect.TEXT

# Dotted key, "*" for a name or a number -> what a change does. Shards depend on less than a run does: what is
# in their own fingerprint (data/build/source.py) is TEXT or STEPS here.
KEYS: dict[str, Effect] = {
    "name": _RESULTS,  # of the card; the folder is named by --output
    "base": _TEXT,
    "seed": _TEXT,  # it also decides what is held out
    "normalise.enabled": _TEXT,
    "normalise.digits": _TEXT,
    "normalise.diacritics": _TEXT,
    "normalise.rules": _TEXT,
    "profiles.*.name": _TEXT,  # the prompt says it
    "profiles.*.code": _TEXT,
    "profiles.*.scripts": _TEXT,
    "profiles.*.letters": _TEXT,
    "profiles.*.joiner": _TEXT,
    "profiles.*.word_characters": _TEXT,
    "profiles.*.direction": _RESULTS,  # of the report's paragraphs
    "profiles.*.replace": _TEXT,
    "profiles.*.probes.joined_words": _TEXT,
    "profiles.*.probes.sentences": _TEXT,
    "profiles.*.prompt.context": _TEXT,
    "profiles.*.prompt.user_turn": _TEXT,
    "profiles.*.prompt.assistant_turn": _TEXT,
    "profiles.*.phrases.translate": _TEXT,
    "profiles.*.phrases.languages": _TEXT,
    "profiles.*.phrases.answer_by_letter": _TEXT,
    "profiles.*.phrases.option_letters": _TEXT,
    "profiles.*.siblings": _TEXT,
    "sources.*.uri": _TEXT,
    "sources.*.kind": _TEXT,
    "sources.*.language": _TEXT,
    "sources.*.text_field": _TEXT,
    "sources.*.group_by": _TEXT,
    "sources.*.columns": _TEXT,
    "sources.*.languages": _TEXT,
    "sources.*.templates": _TEXT,
    "sources.*.txt_unit": _TEXT,
    "sources.*.licence": _RESULTS,
    "quality.enabled": _TEXT,
    "quality.min_characters": _TEXT,
    "quality.max_characters": _TEXT,
    "quality.max_symbol_ratio": _TEXT,
    "quality.max_repeated_line_ratio": _TEXT,
    "quality.mojibake": _TEXT,
    "quality.identify_language": _TEXT,
    "quality.exact_duplicates": _TEXT,
    "quality.near_duplicates": _TEXT,
    "quality.near_duplicate_threshold": _TEXT,
    "heldout.ratio": _TEXT,
    "heldout.max_characters": _TEXT,  # scores of the base would be of another text
    "heldout.max_document_characters": _TEXT,
    "heldout.sources": _TEXT,
    "data.seq_len": _STEPS,
    "data.sequences_per_shard": _STEPS,
    "data.open_sequences": _STEPS,
    "data.max_bad_record_ratio": _FREE,  # whether a build goes on, never what it builds
    "data.max_damaged_file_ratio": _FREE,
    "data.mixture_window": _STEPS,
    "data.mixture_temperature": _STEPS,
    "data.shuffle_block_sequences": _STEPS,
    "data.fast_tokenizer": _FREE,  # used where it gives exactly the same ids
    "data.prompt": _STEPS,
    "vocab.new_tokens": _TEXT,
    "vocab.train_size": _TEXT,
    "vocab.pad_token": _TEXT,
    "vocab.sources": _TEXT,
    "vocab.initialise": _STEPS,
    "vocab.train_embeddings": _STEPS,
    "adapter.rank": _STEPS,
    "adapter.alpha": _STEPS,
    "adapter.dropout": _STEPS,
    "adapter.targets": _STEPS,
    "adapter.layers": _STEPS,
    "adapter.rslora": _STEPS,
    "adapter.dora": _STEPS,
    "adapter.lora_plus_ratio": _STEPS,
    "train.global_batch_size": _STEPS,
    "train.micro_batch_size": _ROUNDING,  # the loss is normalised by the targets of the whole step
    "train.learning_rate": _STEPS,
    "train.embedding_learning_rate": _STEPS,
    "train.weight_decay": _STEPS,
    "train.adam_betas": _STEPS,
    "train.adam_epsilon": _STEPS,
    "train.max_grad_norm": _STEPS,
    "train.schedule": _STEPS,
    "train.warmup_ratio": _STEPS,
    "train.warmup_steps": _STEPS,
    "train.min_lr_ratio": _STEPS,
    "train.precision": _STEPS,
    "train.quantize": _STEPS,
    "train.deterministic": _ROUNDING,
    "train.gradient_checkpointing": _ROUNDING,
    "train.memory_gb": _ROUNDING,  # `gradient_checkpointing: auto` goes by it
    "train.loss_chunk_tokens": _ROUNDING,
    "train.nonfinite_budget": _FREE,
    "train.hang_timeout_s": _FREE,
    "train.spike_sigma": _STEPS,  # it leaves steps out
    "train.spike_window": _STEPS,
    "train.compile": _ROUNDING,
    "train.kernels": _ROUNDING,
    "train.attention": _ROUNDING,
    "train.trackers": _FREE,
    "train.self_tests": _FREE,
    "train.threads_per_rank": _ROUNDING,
    "checkpoint.every_steps": _FREE,
    "checkpoint.keep_last": _FREE,
    "checkpoint.keep_every_steps": _FREE,
    "stages.*.name": _STEPS,
    "stages.*.sources": _STEPS,
    "stages.*.tokens": _STEPS,
    "stages.*.steps": _STEPS,
    "stages.*.epochs": _STEPS,
    "stages.*.seq_len": _STEPS,
    "stages.*.learning_rate": _STEPS,
    "stages.*.embedding_learning_rate": _STEPS,
    "stages.*.trained": _STEPS,
    "stages.*.plateau_steps": _STEPS,
    "stages.*.plateau_min_gain": _STEPS,
    "evaluate.prompts": _RESULTS,  # asked of the export
    "evaluate.max_new_tokens": _RESULTS,
    "evaluate.every_steps": _PATIENCE,
    "evaluate.suites": _PATIENCE,
    "evaluate.suites_within_stages": _PATIENCE,
    "evaluate.data": _PATIENCE,
    "evaluate.limit": _PATIENCE,
    "evaluate.best_metric": _PATIENCE,
    "evaluate.patience": _STEPS,  # it ends stages
    "evaluate.min_gain": _PATIENCE,
    "evaluate.forgetting.language": _FREE,  # it warns or stops, and trains nothing
    "evaluate.forgetting.every_steps": _FREE,
    "evaluate.forgetting.max_documents": _FREE,
    "evaluate.forgetting.max_increase": _FREE,
    "evaluate.forgetting.action": _FREE,
    "evaluate.forgetting.max_time_ratio": _FREE,
    "evaluate.new_tokens": _FREE,
    "evaluate.min_seen": _FREE,
    "energy.enabled": _FREE,
    "energy.interval_s": _FREE,
    "energy.country_iso": _RESULTS,  # the account goes by it, and so do the others
    "energy.intensity_g_per_kwh": _RESULTS,
    "energy.intensity_source": _RESULTS,
    "energy.intensity_year": _RESULTS,
    "energy.intensity_curve_csv": _RESULTS,
    "energy.pue": _RESULTS,
    "energy.cpu_tdp_w": _FREE,
    "energy.price_per_kwh": _RESULTS,
    "energy.currency": _RESULTS,
    "energy.embodied_g_per_hour": _RESULTS,
    "energy.budget_kwh": _FREE,
    "energy.budget_kg_co2": _FREE,
    "export.enabled": _RESULTS,
    "export.dtype": _RESULTS,
    "export.pad_vocab_to_multiple": _RESULTS,
}
