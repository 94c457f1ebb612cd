"""A Hub in memory, behind the call surface of huggingface_hub's HfApi."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects


class FakeHub:
    """`files` is what lies in the one repository; private is None before it exists.

    Every call is bound to the real method's signature, and patterns are applied by the library's own filter.
    """

    def __init__(self, private: bool | None = None, files: dict[str, bytes] | None = None) -> None:
        self.private = private
        self.files = dict(files or {})
        self.calls: list[str] = []

    def create_repo(self, *args: Any, **kwargs: Any) -> str:
        given = self._bound("create_repo", args, kwargs)
        if self.private is None:
            self.private = bool(given["private"])
        elif not given["exist_ok"]:
            raise FileExistsError(given["repo_id"])
        return f"https://hub.test/{given['repo_id']}"

    def repo_info(self, *args: Any, **kwargs: Any) -> SimpleNamespace:
        self._bound("repo_info", args, kwargs)
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *args: Any, **kwargs: Any) -> str:
        given = self._bound("upload_folder", args, kwargs)
        folder = Path(given["folder_path"])
        here = [path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file()]
        added = set(filter_repo_objects(here, allow_patterns=given["allow_patterns"]))
        if (patterns := given["delete_patterns"]) is not None:
            for name in set(filter_repo_objects(list(self.files), allow_patterns=patterns)) - added:
                del self.files[name]
        self.files |= {name: (folder / name).read_bytes() for name in added}
        return "commit"

    def _bound(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(name)
        bound = inspect.signature(getattr(HfApi, name)).bind(self, *args, **kwargs)
        bound.apply_defaults()
        return bound.arguments
