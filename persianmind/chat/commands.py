"""`persianmind chat DIR|RUN`: talk to a model in the form that it was trained in."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from persianmind.common.errors import UsageError

Device = Literal["auto", "cpu", "cuda"]


def chat(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|RUN",
            help="An exported (or any Hugging Face) folder, or a run folder, also of a running run.",
        ),
    ],
    against: Annotated[
        Path | None, typer.Option(metavar="DIR|RUN", help="A second one that answers the same.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="One question; prints the answer alone and ends.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="STEP", help="Of a run; its newest good one otherwise.")
    ] = None,
    device: Annotated[
        Device, typer.Option(help="auto: the GPU for a model folder, the CPU for a run.")
    ] = "auto",
) -> None:
    """Talk to a model: the trained prompt, answers as they are written, history."""
    from persianmind.publish.opening import ModelPlace

    places = {_name(path, checkpoint): ModelPlace(path, checkpoint)}
    if against is not None:
        if _name(against, None) in places:
            raise UsageError(f"--against {against} is the same model; give another, or --checkpoint STEP")
        places[_name(against, None)] = ModelPlace(against)
    for place in places.values():
        place.check()
    from transformers.utils import logging

    from persianmind.chat.conversation import Conversation
    from persianmind.chat.dialogue_loop import answer_once, talk
    from persianmind.chat.screen import Screen
    from persianmind.evaluate.generate import generation_mode

    logging.disable_progress_bar()
    with ExitStack() as stack:
        conversations = {}
        for name, place in places.items():
            model = place.open(device)
            stack.enter_context(generation_mode(model.causal_lm))
            conversations[name] = Conversation(model, max_new_tokens)
        if prompt is None:
            talk(conversations, Screen())
        else:
            answer_once(conversations, prompt, Screen())


def _name(path: Path, checkpoint: str | None) -> str:
    return str(path) if checkpoint is None else f"{path}, checkpoint {checkpoint}"
