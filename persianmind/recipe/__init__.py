"""The whole configuration of a run; see `whole.Recipe`."""

from persianmind.recipe.adapter import Adapter
from persianmind.recipe.data import Data
from persianmind.recipe.energy import Energy
from persianmind.recipe.evaluate import Evaluate, Forgetting
from persianmind.recipe.export import Export
from persianmind.recipe.packing import Packing
from persianmind.recipe.section import Section
from persianmind.recipe.text import HeldOut, Normalise, Quality, Source
from persianmind.recipe.train import Checkpoint, Stage, Train
from persianmind.recipe.vocab import Vocab
from persianmind.recipe.whole import Recipe

__all__ = [
    "Adapter",
    "Checkpoint",
    "Data",
    "Energy",
    "Evaluate",
    "Export",
    "Forgetting",
    "HeldOut",
    "Normalise",
    "Packing",
    "Quality",
    "Recipe",
    "Section",
    "Source",
    "Stage",
    "Train",
    "Vocab",
]
