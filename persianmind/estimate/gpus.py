"""GPUs by name: what they multiply at most, their memory and their power."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from persianmind.common.errors import UsageError, nearest

GA10X = "NVIDIA GA102 white paper, appendix A"
AD10X = "NVIDIA Ada white paper, appendix A"
GB20X = "NVIDIA RTX Blackwell white paper, appendix A"
TU102 = "NVIDIA Turing white paper, appendix A"
DATA_SHEET = "NVIDIA data sheet"


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One kind of GPU, by its data sheet.

    memory_gb: as sold, which is in units of 2**30 bytes. peak_flops: dense matmuls by precision, FLOP/s
    (int8: operations per second); a precision that it has no matmul for is missing. bandwidth: of its memory,
    bytes/s.
    power_w: of the whole board. other_names: what the driver calls it beside "NVIDIA (GeForce) NAME".
    """

    name: str
    memory_gb: float
    peak_flops: Mapping[str, float]
    bandwidth: float
    power_w: float
    source: str
    other_names: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """Bytes on the board; the driver keeps some of them."""
        return int(self.memory_gb * 2**30)


# Matmul FLOP per clock and SM, dense. bf16 and fp16 with fp32 sums, as torch multiplies: half of the printed
# fp16 figure on GeForce; fp32 on the ordinary cores, as torch does without TF32.
_GEFORCE = {"bf16": 512, "fp16": 512, "fp32": 256, "int8": 2048}
_PROFESSIONAL = {"bf16": 1024, "fp16": 1024, "fp32": 256, "int8": 2048}
_TURING_GEFORCE = {"fp16": 512, "fp32": 128, "int8": 2048}


def _by_clock(per_clock: Mapping[str, int], sms: int, boost_mhz: float) -> dict[str, float]:
    """The white papers' own arithmetic: SMs x boost clock x FLOP per clock."""
    return {precision: flop * sms * boost_mhz * 1e6 for precision, flop in per_clock.items()}


def _stated(bf16: float | None, fp16: float, fp32: float, int8: float) -> dict[str, float]:
    """TFLOP/s as a data sheet of a data-centre GPU prints them, dense."""
    peaks = {"bf16": bf16, "fp16": fp16, "fp32": fp32, "int8": int8}
    return {precision: value * 1e12 for precision, value in peaks.items() if value is not None}


def _geforce(
    name: str, memory_gb: float, sms: int, boost_mhz: float, gb_per_s: float, power_w: float, source: str
) -> GpuSpec:
    return GpuSpec(name, memory_gb, _by_clock(_GEFORCE, sms, boost_mhz), gb_per_s * 1e9, power_w, source)


def _professional(
    name: str,
    memory_gb: float,
    sms: int,
    boost_mhz: float,
    gb_per_s: float,
    power_w: float,
    *other_names: str,
) -> GpuSpec:
    peaks = _by_clock(_PROFESSIONAL, sms, boost_mhz)
    return GpuSpec(name, memory_gb, peaks, gb_per_s * 1e9, power_w, DATA_SHEET, other_names)


def _data_centre(
    name: str,
    memory_gb: float,
    peaks: Mapping[str, float],
    gb_per_s: float,
    power_w: float,
    *other_names: str,
) -> GpuSpec:
    return GpuSpec(name, memory_gb, peaks, gb_per_s * 1e9, power_w, DATA_SHEET, other_names)


_A100 = _stated(312, 312, 19.5, 624)
_H100_SXM = _stated(989.4, 989.4, 66.9, 1978.9)

# A name that was sold with several sizes of memory is the smallest of them.
GPUS = (
    GpuSpec("RTX 2080 Ti", 11, _by_clock(_TURING_GEFORCE, 68, 1545), 616e9, 250, TU102),
    _geforce("RTX 3060", 12, 28, 1777, 360, 170, GA10X),
    _geforce("RTX 3060 Ti", 8, 38, 1665, 448, 200, GA10X),
    _geforce("RTX 3070", 8, 46, 1725, 448, 220, GA10X),
    _geforce("RTX 3070 Ti", 8, 48, 1770, 608.3, 290, GA10X),
    _geforce("RTX 3080", 10, 68, 1710, 760.3, 320, GA10X),
    _geforce("RTX 3080 12 GB", 12, 70, 1710, 912.4, 350, GA10X),
    _geforce("RTX 3080 Ti", 12, 80, 1665, 912.4, 350, GA10X),
    _geforce("RTX 3090", 24, 82, 1695, 936.2, 350, GA10X),
    _geforce("RTX 3090 Ti", 24, 84, 1860, 1008.4, 450, GA10X),
    _geforce("RTX 4060", 8, 24, 2460, 272, 115, AD10X),
    _geforce("RTX 4060 Ti", 8, 34, 2535, 288, 160, AD10X),
    _geforce("RTX 4060 Ti 16 GB", 16, 34, 2535, 288, 165, AD10X),
    _geforce("RTX 4070", 12, 46, 2475, 504.2, 200, AD10X),
    _geforce("RTX 4070 SUPER", 12, 56, 2475, 504.2, 220, AD10X),
    _geforce("RTX 4070 Ti", 12, 60, 2610, 504.2, 285, AD10X),
    _geforce("RTX 4070 Ti SUPER", 16, 66, 2610, 672.3, 285, AD10X),
    _geforce("RTX 4080", 16, 76, 2505, 716.8, 320, AD10X),
    _geforce("RTX 4080 SUPER", 16, 80, 2550, 736.3, 320, AD10X),
    _geforce("RTX 4090", 24, 128, 2520, 1008, 450, AD10X),
    _geforce("RTX 5060 Ti", 8, 36, 2572, 448, 180, GB20X),
    _geforce("RTX 5060 Ti 16 GB", 16, 36, 2572, 448, 180, GB20X),
    _geforce("RTX 5070", 12, 48, 2512, 672, 250, GB20X),
    _geforce("RTX 5070 Ti", 16, 70, 2452, 896, 300, GB20X),
    _geforce("RTX 5080", 16, 84, 2617, 960, 360, GB20X),
    _geforce("RTX 5090", 32, 170, 2407, 1792, 575, GB20X),
    _professional("RTX A4000", 16, 48, 1560, 448, 140),
    _professional("RTX A4500", 20, 56, 1650, 640, 200),
    _professional("RTX A5000", 24, 64, 1695, 768, 230),
    _professional("RTX A5500", 24, 80, 1665, 768, 230),
    _professional("RTX A6000", 48, 84, 1800, 768, 300),
    _professional("RTX 6000 Ada", 48, 142, 2505, 960, 300, "RTX 6000 Ada Generation"),
    _professional(
        "RTX PRO 6000 Blackwell", 96, 188, 2617, 1792, 600, "RTX PRO 6000 Blackwell Workstation Edition"
    ),
    _data_centre("T4", 16, _stated(None, 65, 8.1, 130), 320, 70, "Tesla T4"),
    _data_centre("A10", 24, _stated(125, 125, 31.2, 250), 600, 150),
    _data_centre("A10G", 24, _stated(70, 70, 35, 140), 600, 300),
    _data_centre("A30", 24, _stated(165, 165, 10.3, 330), 933, 165),
    _data_centre("A40", 48, _stated(149.7, 149.7, 37.4, 299.3), 696, 300),
    _data_centre("A100 PCIe 40 GB", 40, _A100, 1555, 250, "A100", "A100-PCIE-40GB", "A100 40 GB"),
    _data_centre("A100 SXM 40 GB", 40, _A100, 1555, 400, "A100-SXM4-40GB"),
    _data_centre("A100 PCIe 80 GB", 80, _A100, 1935, 300, "A100 80GB PCIe", "A100 80 GB"),
    _data_centre("A100 SXM 80 GB", 80, _A100, 2039, 400, "A100-SXM4-80GB"),
    _data_centre("L4", 24, _stated(121, 121, 30.3, 242), 300, 72),
    _data_centre("L40S", 48, _stated(362, 362, 91.6, 733), 864, 350),
    _data_centre("H100 PCIe", 80, _stated(756, 756, 51.2, 1513), 2000, 350, "H100"),
    _data_centre("H100 SXM", 80, _H100_SXM, 3350, 700, "H100 80GB HBM3", "H100 SXM5"),
    _data_centre("H100 NVL", 94, _stated(835.5, 835.5, 60, 1671), 3900, 400),
    _data_centre("H200", 141, _H100_SXM, 4800, 700, "H200 SXM"),
)

_MAKER = re.compile(r"\b(nvidia|geforce|tesla|quadro)\b")


def _key(name: str) -> str:
    """A name without its maker, case and spacing: the driver's, the shop's and the user's are alike."""
    return re.sub(r"[^a-z0-9]", "", _MAKER.sub("", name.lower()))


_BY_KEY = {_key(name): gpu for gpu in reversed(GPUS) for name in (gpu.name, *gpu.other_names)}


def known_gpu(name: str) -> GpuSpec | None:
    """The GPU of this name; None where the table has no such one. A laptop's GPU is another one than the
    desktop's of its number."""
    key = _key(name)
    return _BY_KEY.get(key) or _BY_KEY.get(f"rtx{key}")


def find_gpu(name: str) -> GpuSpec:
    """The GPU of this name: "RTX 3090", "3090", "NVIDIA GeForce RTX 3090" are the same.

    Raises:
        UsageError: the table has none of this name; the line names those that come nearest.
    """
    gpu = known_gpu(name)
    if gpu is None:
        names = [gpu.name for gpu in GPUS]
        raise UsageError(
            f"no GPU {name!r} in the table{nearest(name, names)}; known are {', '.join(names)}; for "
            "another one give --memory-gb alone"
        )
    return gpu
