"""The ``nrp`` command: each verb's module is imported only when the verb is called."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from model_store.errors import NrpError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE


@dataclass(frozen=True)
class Verb:
    """Where a verb lives, and what its help says before any of that is imported."""

    module: str
    summary: str
    examples: tuple[str, ...]


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "serve": Verb(
            "service.commands.serve",
            "start the HTTP service",
            ("nrp serve", "nrp serve --host 0.0.0.0 --port 8080"),
        ),
        "purify": Verb(
            "service.commands.purify",
            "purify image files and folders into a folder",
            ("nrp purify photo.jpg --output out", "nrp purify photos/ more/ --output out"),
        ),
        "classify": Verb(
            "service.commands.classify",
            "purify images, then name what they show",
            ("nrp classify photo.jpg", "nrp classify photo.jpg --json"),
        ),
        "detect": Verb(
            "service.commands.detect",
            "purify images, then find objects in them",
            ("nrp detect photo.jpg", "nrp detect photos/ --score-threshold 0.3 --compare --json"),
        ),
        "segment": Verb(
            "service.commands.segment",
            "purify images, then write what each pixel shows",
            ("nrp segment photo.jpg --output masks", "nrp segment photos/ --output masks --json"),
        ),
        "attack": Verb(
            "robustness.attack_verb",
            "attack photos with a model, to see what it says then",
            (
                "nrp attack photo.jpg --model efficientnet-lite0 --eps 8 --output attacked",
                "nrp attack photo.jpg --model efficientnet-lite0 --attack PGD-10 --targeted goldfish --output attacked",
                "nrp attack *.png --model squeezenet --attack SSP --surrogate vgg16-hed --eps 16 --output attacked",
            ),
        ),
        "bench": Verb(
            "service.bench.commands",
            "measure this service beside other servers",
            (
                "nrp bench --quick",
                "nrp bench --peers .venv/peers",
                "nrp bench --arms nrp,litserve --clients 1,32 --parts load",
                "nrp bench --render",
            ),
        ),
        "evaluate": Verb(
            "robustness.commands",
            "measure purifiers against attacks",
            (
                "nrp evaluate --suite imagenet --data nips17 --data camvid --data coco-val128",
                "nrp evaluate --card --model my-classifier --data my-photos/val",
                "nrp evaluate classifier imagenette-resnet --data DIR",
                "nrp evaluate purifier nrp-fast --victims imagenette-resnet --data DIR --limit 100",
                "nrp evaluate --suite imagenet --section unaware --purifier nrp-fast,MY-PURIFIER --data nips17",
                "nrp evaluate certify nrp-smoothing --classifier imagenette-resnet --data DIR --limit 50",
                "nrp evaluate cost --purifier nrp-fast --architecture nrp,nrp_resg",
            ),
        ),
        "train": Verb(
            "training.commands",
            "train purifiers, and the models that they are measured with",
            (
                "nrp train classifier DIR",
                "nrp train purifier DIR --recipe my.toml --store models",
                "nrp train pack DIR --output photos.safetensors --side 160",
                "nrp train plan surrogate-resnet purifier-mixed --output PLAN.json",
                "nrp train publish finished/nrp-mixed --store models",
            ),
        ),
        "models": Verb(
            "model_store.commands",
            "list, show, verify, import and publish models",
            (
                "nrp models list",
                "nrp models show nrp-fast",
                "nrp models verify",
                "nrp models import NRP.pth --name nrp-published",
                "nrp models publish other-store/nrp-fast --store models",
            ),
        ),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 misused, 130 interrupted."""
    try:
        try:
            return run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # a closed pipe shows here, not at exit where nothing can catch it
    except NrpError as error:
        print(f"nrp: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nrp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def run(argv: Sequence[str]) -> int:
    """Run the verb that ``argv`` begins with; anything else is the top-level parser's to answer."""
    if not argv or argv[0] not in VERBS:
        parser = top_parser()
        parser.parse_args(argv)
        parser.error("name a verb")
    parser, run_verb = load_verb(argv[0])
    return run_verb(parser.parse_args(argv[1:]))


def top_parser() -> argparse.ArgumentParser:
    """The parser behind ``nrp --help``; it knows the verbs' names and summaries and imports none of them."""
    parser = argparse.ArgumentParser(
        prog="nrp",
        description="Purify images of adversarial perturbations before a vision model sees them.",
        epilog="nrp VERB --help explains one verb.",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")
    for name, verb in VERBS.items():
        verbs.add_parser(name, help=verb.summary, add_help=False)
    return parser


def load_verb(name: str) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]]:
    """Import one verb's room; return its parser, described and with examples, and what runs it."""
    verb = VERBS[name]
    module = importlib.import_module(verb.module)
    indented = "\n".join(f"  {line}" for line in verb.examples)
    parser = argparse.ArgumentParser(
        prog=f"nrp {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    getattr(module, f"configure_{name}")(parser)
    parser.epilog = "\n\n".join(filter(None, (parser.epilog, f"examples:\n{indented}")))
    return parser, getattr(module, f"run_{name}")


class Version(argparse.Action):
    """Look the version up only when asked for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            version = importlib.metadata.version("nrp")
        except importlib.metadata.PackageNotFoundError as error:
            raise NrpError(
                "nrp is run from a folder, not installed, and has no version; install it with make"
            ) from error
        print(f"nrp {version}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
