"""Keys of DeepSpeed's JSON that do nothing here: docs/deepspeed.md in code, as json_keys.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Not passed on: key -> why nothing depends on it.
IGNORED_KEYS: Mapping[str, str] = {
    "zero_allow_untested_optimizer": "AdamW is a tested one",
    "zero_force_ds_cpu_optimizer": "there is no offload",
    "checksum": "of the resolved file in a run folder",
}

_PRECISION = "train.precision in the recipe is bf16, fp32 or auto"
# What to do instead -> keys.
_OFF: Mapping[str, str] = {
    "the recipe's train.schedule, train.warmup_ratio and train.min_lr_ratio make the rate": "scheduler",
    _PRECISION: "fp16 amp torch_autocast",
    f"{_PRECISION}, and gradients are summed in fp32": "data_types",
    "its name is bf16": "bfloat16",
    "train.max_grad_norm in the recipe and gradient_clipping here say it": "optimizer.params.max_grad_norm",
    "train.gradient_checkpointing in the recipe says it": "activation_checkpointing",
    "train.compile in the recipe says it": "compile",
    "checkpoint in the recipe says it": "checkpoint",
    "every sequence is trained": "dataloader_drop_last",
    "metrics.jsonl has mfu": "flops_profiler",
    "train.trackers in the recipe says where numbers go": "tensorboard wandb csv_monitor comet",
    "this trainer does not do it": """
        aio autotuning comms_logger compression_training curriculum_learning data_efficiency
        data_parallel_group datastates_ckpt disable_allgather disable_python_gc eigenvalue elasticity
        expert_parallel hybrid_engine log_level managed_gradient_accumulation nebula pipeline
        progressive_layer_drop quantize_training seq_parallel_communication_data_type
        sequence_parallel_size sparse_attention sparse_gradients tensor_parallel
        use_data_before_expert_parallelism vocabulary_size weight_quantization
        zero_optimization.enable_sanity_checks zero_optimization.zenflow""",
    "it keeps everything on the GPU; train.quantize=nf4 or a smaller train.micro_batch_size saves memory": """
        zero_optimization.offload_optimizer zero_optimization.offload_param
        zero_optimization.cpu_offload zero_optimization.cpu_offload_param
        zero_optimization.cpu_offload_use_pin_memory""",
    "gradients and weights are exchanged as they are": """
        zero_optimization.zero_quantized_weights zero_optimization.zero_quantized_nontrainable_weights
        zero_optimization.zero_quantized_gradients zero_optimization.zeropp_loco_param""",
    "it is for ZeRO stage 3, this trainer is built on stage 2": """
        zero_optimization.stage3_prefetch_bucket_size zero_optimization.stage3_param_persistence_threshold
        zero_optimization.stage3_model_persistence_threshold zero_optimization.stage3_max_live_parameters
        zero_optimization.stage3_max_reuse_distance zero_optimization.stage3_module_granularity_threshold
        zero_optimization.stage3_gather_16bit_weights_on_model_save
        zero_optimization.stage3_gather_fp16_weights_on_model_save
        zero_optimization.stage3_use_all_reduce_for_fetch_params
        zero_optimization.stage3_allgather_sequential zero_optimization.sub_group_size
        zero_optimization.zero_hpz_partition_size zero_optimization.mics_shard_size
        zero_optimization.mics_hierarchical_params_gather zero_optimization.memory_efficient_linear
        zero_optimization.override_module_apply zero_optimization.pipeline_loading_checkpoint
        zero_optimization.log_trace_cache_warnings zero_optimization.leaf_module
        zero_optimization.save_muon_momentum_buffer_in_memory""",
}
# Allowed only where they say that they are turned off: key -> what to do instead.
OFF_KEYS: Mapping[str, str] = {key: instead for instead, keys in _OFF.items() for key in keys.split()}


def is_off(value: Any) -> bool:
    """Whether a section or key says itself that it does nothing; a switch at "auto" is one that the recipe
    does not turn on."""
    if isinstance(value, dict):
        return not value or value.get("enabled") in (False, "auto") or value.get("device") == "none"
    return value is None or value is False
