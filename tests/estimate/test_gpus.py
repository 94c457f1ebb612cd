"""The table of GPUs: names as drivers, shops and users write them; figures against printed ones."""

from __future__ import annotations

import pytest

from persianmind.common.errors import UsageError
from persianmind.estimate.gpus import GPUS, find_gpu, known_gpu


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("RTX 3090", "RTX 3090"),
        ("3090", "RTX 3090"),
        ("rtx3090ti", "RTX 3090 Ti"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti SUPER"),
        ("4060 Ti 16GB", "RTX 4060 Ti 16 GB"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H200", "H200"),
    ],
)
def test_a_gpu_is_found_by_any_of_its_names(asked: str, name: str) -> None:
    assert find_gpu(asked).name == name


@pytest.mark.parametrize(
    "other", ["NVIDIA GeForce RTX 3080 Laptop GPU", "Quadro RTX 6000", "NVIDIA GeForce GTX 1080", "cpu", ""]
)
def test_another_gpu_of_the_same_number_is_not_it(other: str) -> None:
    assert known_gpu(other) is None


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'RTX 3090'\?.*--memory-gb") as error:
        find_gpu("RTX 3099")
    assert "\n" not in str(error.value)


# As printed: dense TFLOP/s (int8: TOP/s) with fp32 sums. GeForce: the white papers' appendices.
PRINTED = {
    "RTX 3070": {"bf16": 40.6, "fp32": 20.3, "int8": 162.6},
    "RTX 3080": {"bf16": 59.5, "fp32": 29.8, "int8": 238},
    "RTX 3090": {"bf16": 71, "fp16": 71, "fp32": 35.6, "int8": 284},
    "RTX 4080": {"bf16": 97.5, "fp32": 48.7, "int8": 389.9},
    "RTX 4090": {"bf16": 165.2, "fp32": 82.6, "int8": 660.6},
    "RTX 5080": {"bf16": 112.6, "fp32": 56.3, "int8": 450.2},
    "RTX 5090": {"bf16": 209.5, "fp32": 104.8, "int8": 838},
    "RTX A6000": {"bf16": 154.8, "fp32": 38.7, "int8": 309.7},
    "RTX A4000": {"bf16": 76.7, "fp32": 19.2},
    "RTX 6000 Ada": {"bf16": 364.2, "fp32": 91.1, "int8": 728.5},
}


@pytest.mark.parametrize("name", PRINTED)
def test_peaks_are_the_printed_ones(name: str) -> None:
    for precision, tera in PRINTED[name].items():
        assert find_gpu(name).peak_flops[precision] == pytest.approx(tera * 1e12, rel=0.01), precision


def test_bf16_is_missing_where_the_hardware_has_none() -> None:
    assert {gpu.name for gpu in GPUS if "bf16" not in gpu.peak_flops} == {"T4", "RTX 2080 Ti"}


def test_rows_are_whole_and_differ() -> None:
    assert len({gpu.name for gpu in GPUS}) == len(GPUS)
    for gpu in GPUS:
        assert known_gpu(gpu.name) is gpu
        assert all(known_gpu(name) is gpu for name in gpu.other_names), gpu.name
        assert 8 <= gpu.memory_gb <= 192 and 50 < gpu.power_w <= 700 and 250e9 < gpu.bandwidth < 5e12
        assert "white paper" in gpu.source or "data sheet" in gpu.source
    assert find_gpu("RTX 3090").memory_bytes == 25_769_803_776
