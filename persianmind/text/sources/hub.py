"""Datasets of the Hugging Face hub: `hf://owner/dataset?split=train&config=fa`, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from persianmind.common.errors import SourceError
from persianmind.recipe import Source
from persianmind.text.formats.base import after
from persianmind.text.record import Fields, Payload
from persianmind.text.sources.listing import Listing


@dataclass(frozen=True, slots=True)
class HubDataset:
    """One split of a dataset; `train` unless stated."""

    uri: str
    name: str
    format: ClassVar[str] = ""
    size_bytes: ClassVar[int | None] = None
    remote: ClassVar[bool] = True

    def read(self, source_name: str, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """Its records, in the order in which `datasets` streams them."""
        return after(enumerate(self._stream(source_name), start=1), skip)

    def check(self, source_name: str, source: Source) -> None:
        """Needs the network: left to reading."""

    def identity(self) -> str:
        """Its address: a dataset that changes under it is not noticed."""
        return self.uri

    def _stream(self, source_name: str) -> Iterator[Fields]:
        from datasets import load_dataset

        parts = urlsplit(self.uri.removeprefix("hf://"))
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        try:
            # No trust_remote_code: a dataset that needs its own script is refused by `datasets` itself.
            yield from load_dataset(
                parts.path, name=query.get("config"), split=query.get("split", "train"), streaming=True
            )
        except OSError:
            raise
        except Exception as error:  # many kinds; all of them mean: this source cannot be read
            line = " ".join(str(error).split())
            raise SourceError(f"sources.{source_name}: `datasets` cannot stream {self.uri}: {line}") from None


def list_hub(source_name: str, uri: str) -> Listing:
    """The dataset at `hf://...`; no network is used.

    Raises:
        SourceError: the URI names none.
    """
    name = uri.removeprefix("hf://")
    if not name:
        raise SourceError(f"sources.{source_name}.uri {uri!r} names no dataset; write hf://owner/dataset")
    return Listing([HubDataset(uri, name)])
