"""What pyproject.toml cannot say: recipes and DeepSpeed's JSON lie beside the package in the tree, in a wheel
inside it.

There is one copy of each in the tree; `persianmind.common.paths.shipped_folder` finds either.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = {"launcher/recipes": "recipes", "ds_configs": "ds_configs"}


class BuildWithShipped(build_py):
    """Copies the folders into the built package."""

    def run(self):
        super().run()
        if self.editable_mode:  # the package is the one in the tree
            return
        for source, name in SHIPPED.items():
            target = Path(self.build_lib) / "persianmind" / "shipped" / name
            shutil.copytree(ROOT / source, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShipped})
