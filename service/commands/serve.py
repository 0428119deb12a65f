"""``nrp serve``."""

from __future__ import annotations

import argparse

from service.app import create_app
from service.commands.arguments import add_model_options, chosen
from service.logs import configure_logs
from service.server import serve
from service.settings import load_settings


def configure_serve(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp serve``."""
    add_model_options(parser)
    parser.add_argument(
        "--classifier", metavar="NAME", help="classifier in the store, torchvision:NAME, timm:NAME, a URL, or none"
    )
    parser.add_argument("--segmenter", metavar="NAME", help="segmenter in the store, torchvision:NAME, a URL, or none")
    parser.add_argument("--detector", metavar="NAME", help="detector in the store, torchvision:NAME, a URL, or none")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000)")
    everything_else = "Everything else is set by NRP_* variables; an option here overrides its variable."
    parser.epilog = "\n\n".join(part for part in (parser.epilog, everything_else) if part)


def run_serve(args: argparse.Namespace) -> int:
    """Load and verify the models, then serve until SIGTERM or Ctrl-C."""
    downstream = {"classifier": args.classifier, "segmenter": args.segmenter, "detector": args.detector}
    settings = load_settings(**chosen(args), **downstream, host=args.host, port=args.port)
    app = create_app(settings)
    configure_logs(settings)
    return serve(app, settings)
