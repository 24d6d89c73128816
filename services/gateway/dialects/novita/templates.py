"""Templates: what a `templateId` stands for. Pure.

Seeds 001, 002 and 004 use `template-123` and `pytorch-jupyter`; upstream's own ids are numbers. A number is passed
on as the image `novita/template:<id>`, which the provider's adapter resolves; any other name must be in the table.
"""

from __future__ import annotations

import re

from msgspec import Struct

from libs.refusal import Refused
from proto.instance.words import JUPYTER_PORT, SSH_PORT, WEB_TERMINAL_PORT, Port

UPSTREAM_IMAGE = "novita/template"
_NUMBER = re.compile(r"[0-9]{1,18}")
_PORTS = (Port(JUPYTER_PORT, "http"), Port(SSH_PORT, "tcp"), Port(WEB_TERMINAL_PORT, "http"))


class Template(Struct, frozen=True):
    """An image and the ports it serves. Jupyter, ssh and a web terminal: what `connectionDetails` promises."""

    image: str
    ports: tuple[Port, ...] = _PORTS


TEMPLATES = {
    "pytorch-jupyter": Template("pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime"),
    "template-123": Template("pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime"),
    "tensorflow-jupyter": Template("tensorflow/tensorflow:2.15.0-gpu-jupyter"),
    "ubuntu-cuda": Template("nvidia/cuda:12.4.1-devel-ubuntu22.04"),
}


def template(template_id: str) -> Template:
    """Raises TEMPLATE_NOT_FOUND."""
    known = TEMPLATES.get(template_id)
    if known is not None:
        return known
    if _NUMBER.fullmatch(template_id):
        return Template(f"{UPSTREAM_IMAGE}:{template_id}")
    raise Refused("TEMPLATE_NOT_FOUND", template_id=template_id[:100])
