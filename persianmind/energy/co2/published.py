"""Published training runs with their published figures, and the same runs normalised to our PUE and grid.

Only figures that stand in the cited source; what we derive is computed below and called so. A number that a
source does not give is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PublishedRun:
    """One run. `gpu_watts` is the power per GPU that the source reckons with, a rating or an average."""

    name: str
    co2_kg: float
    gpu_hours: float
    gpu_watts: float | None
    pue: float | None
    intensity_g_per_kwh: float | None
    source: str
    remark: str = ""


PUBLISHED = (
    PublishedRun(
        "PersianMind 7B (adaptation)", 232.38, 960, None, None, None,
        "arXiv 2401.06466; model card of universitytehran/PersianMind-v1.0 (232,380 g, 4 x RTX 3090)",
        "0.35 kW, PUE 1.4 and 494 g/kWh reproduce the figure; they are our inference, not the paper's",
    ),
    PublishedRun(
        "LLaMA 7B (pre-training)", 14_000, 82_432, 400, 1.1, 385.0,
        "Touvron et al. 2023, arXiv 2302.13971, table 15 (36 MWh)",
    ),
    PublishedRun(
        "Llama 2 7B (pre-training)", 31_220, 184_320, 400, None, None,
        "Touvron et al. 2023, arXiv 2307.09288, table 2",
    ),
    PublishedRun(
        "Llama 2 70B (pre-training)", 291_420, 1_720_320, 400, None, None,
        "Touvron et al. 2023, arXiv 2307.09288, table 2",
    ),
    PublishedRun(
        "BLOOM 176B (pre-training)", 24_690, 1_082_990, None, None, 57.0,
        "Luccioni et al. 2022, arXiv 2211.02001",
        "433,196 kWh of dynamic consumption; 50.5 t with idle power and manufacture",
    ),
    PublishedRun(
        "GPT-3 175B (pre-training)", 552_100, 3_552_000, 330, 1.10, 429.0,
        "Patterson et al. 2021, arXiv 2104.10350, table 4 (1,287 MWh)",
        "GPU hours are 10,000 V100 for 14.8 days, as the source states them",
    ),
)  # fmt: skip

COMPARABLE = 10.0  # a run of as many times more or fewer GPU hours says nothing beside another
PERSIANMIND_KW = 0.35  # our inference: the power limit of an RTX 3090


@dataclass(frozen=True)
class Footing:
    """A building and a grid that GPU energies are put on."""

    pue: float
    g_per_kwh: float
    source: str


PAPER = Footing(1.4, 494.0, "our inference: with 0.35 kW they give the 232,380 g of the PersianMind paper")
_KNOWN_GPU_KWH = {"BLOOM 176B (pre-training)": 433_196.0, "PersianMind 7B (adaptation)": 960 * PERSIANMIND_KW}


def co2_g(kwh: float, pue: float, intensity_g_per_kwh: float) -> float:
    """Grams CO2eq of `kwh` used by the machines: kWh x PUE x grid intensity (Patterson et al. 2021)."""
    return kwh * pue * intensity_g_per_kwh


def comparable_runs(gpu_hours: float, pue: float, intensity_g_per_kwh: float | None) -> list[dict[str, Any]]:
    """The published runs of about as many GPU hours; [] where none is of that scale."""
    return [
        normalised_to_pue_and_grid(run, pue, intensity_g_per_kwh)
        for run in PUBLISHED
        if run.gpu_hours / COMPARABLE <= gpu_hours <= run.gpu_hours * COMPARABLE
    ]


def normalised_to_pue_and_grid(
    run: PublishedRun, pue: float, intensity_g_per_kwh: float | None
) -> dict[str, Any]:
    """A published run beside what its GPU energy alone would emit with this run's PUE and grid."""
    gpu_kwh = _KNOWN_GPU_KWH.get(run.name)
    if gpu_kwh is None and run.gpu_watts is not None:
        gpu_kwh = run.gpu_hours * run.gpu_watts / 1000
    recomputed = None
    if gpu_kwh is not None and intensity_g_per_kwh is not None:
        recomputed = co2_g(gpu_kwh, pue, intensity_g_per_kwh)
    return {
        "name": run.name,
        "published_co2_g": run.co2_kg * 1000,
        "gpu_hours": run.gpu_hours,
        "gpu_kwh": gpu_kwh,
        "published_pue": run.pue,
        "published_intensity_g_per_kwh": run.intensity_g_per_kwh,
        "recomputed_co2_g": recomputed,
        "source": run.source,
        "remark": run.remark,
    }
