"""Where a remote model is and how it is spoken to, as a setting writes it: a URL whose scheme says both."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

import httpx

from model_store.official import Kind

Protocol = Literal["image-in-json-out", "open-inference-protocol"]

OIP = "oip+"
SCHEMES: Mapping[str, Protocol] = MappingProxyType(
    {
        "http": "image-in-json-out",
        "https": "image-in-json-out",
        "oip+http": "open-inference-protocol",
        "oip+https": "open-inference-protocol",
    }
)
_MODEL_PATH = re.compile(
    r"(?P<prefix>(?:/[\w.~-]+)*?)(?:/v2)?/models/(?P<name>[\w.-]{1,100})(?P<version>/versions/[\w.-]{1,100})?", re.ASCII
)

Parameters = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class RemoteAddress:
    """``url``: the resource asked; of the Open Inference Protocol the model's, ``server`` being the server's own.

    ``name``: what answers, metrics and logs call the model; it tells nothing of the network. ``parameters``: of each
    inference request of the protocol.
    """

    protocol: Protocol
    name: str
    url: str
    server: str = ""
    parameters: Parameters = field(default_factory=dict)


def is_remote(name: str) -> bool:
    """Whether a setting names a remote model, rightly or not, rather than one of the store's or torchvision's."""
    return "://" in name


def parse_address(kind: Kind, text: str) -> RemoteAddress:
    """The address that ``text`` is. Raises ValueError: one line, without what might be a secret."""
    parts = _split(text)
    protocol = SCHEMES[parts.scheme.lower()]
    if protocol == "image-in-json-out":
        return RemoteAddress(protocol, f"remote:{kind}", urlunsplit(parts))
    found = _MODEL_PATH.fullmatch(parts.path.rstrip("/"))
    if found is None:
        raise ValueError(f"{OIP}http(s) URLs end in /models/NAME, as in {OIP}http://host:8000/models/resnet50")
    scheme = parts.scheme.lower().removeprefix(OIP)
    server = urlunsplit((scheme, parts.netloc, f"{found['prefix']}/v2", "", ""))
    url = f"{server}/models/{found['name']}{found['version'] or ''}"
    return RemoteAddress(protocol, f"remote:{found['name']}", url, server, _parameters(parts.query))


def _split(text: str) -> SplitResult:
    if not text.isprintable() or " " in text:
        raise ValueError("a URL holds no spaces and no control characters")
    parts = urlsplit(text)
    if parts.scheme.lower() not in SCHEMES:
        raise ValueError(f"a remote model's URL begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if "@" in parts.netloc:
        raise ValueError("the URL holds credentials; put them in NRP_REMOTE_AUTHORIZATION")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.fragment:
        raise ValueError("the URL has a fragment (#...), which no server ever sees; leave it out")
    _ = parts.port  # raises ValueError where it is no port
    try:
        httpx.URL(urlunsplit(parts).removeprefix(OIP))
    except httpx.InvalidURL as error:
        raise ValueError("it is no valid URL") from error
    return parts


def _parameters(query: str) -> Parameters:
    """``mode=static&seed=1`` as an inference request's parameters: numbers and truth values as such, else text."""
    return MappingProxyType({name: _value(text) for name, text in parse_qsl(query, keep_blank_values=True)})


def _value(text: str) -> bool | int | float | str:
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text
