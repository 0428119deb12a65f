"""The plan: which attacks the suite `imagenet` makes, at which budgets, on how many photos.

The whole plan is sized for 200 photos on two cores: the section `unaware` takes about two and a half hours there. A
gradient of an ImageNet network costs some 25 ms an image, all defences of one adversary together about half a second,
so what is saved is saved on attacks that hardly differ and on the classifier that training has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from robustness.aware.plan import AwarePlan

EPS = (2, 4, 8, 16)
# Where each network's features are taken, from the image to the answer: conv1-2 to conv5-3, and Lite0's stages.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vgg16-hed", ("features.3", "features.8", "features.15", "features.22", "features.29")),
    ("efficientnet-lite0", tuple(f"network.blocks.{stage}" for stage in range(7))),
)
# Fewer photos than this are a rehearsal: a smaller plan, whose rows never go into docs/results by themselves.
FEWEST = 50


@dataclass(frozen=True)
class Line:
    """A white-box attack of the registry: its budgets, those on classifiers seen in training, its share of photos."""

    key: str
    eps: tuple[int, ...]
    seen_eps: tuple[int, ...] = ()
    share: float = 1.0


@dataclass(frozen=True)
class Plan:
    """Budgets in /255.

    ``photos`` stand under unaware attackers; the paper's tables use them too, its figures the first
    ``figure_photos``. ``white`` are attacks on each classifier itself, ``transfer`` those that other classifiers are
    followed with, beside SSP and FFF on features. ``layer_iterations`` are SSP's on the ``layers`` of figure 1,
    ``counts`` the iterations of figure 6, ``known_photos`` stand under table 1's attacker who knows the purifier and
    averages over ``known_draws``, and ``aware`` is the protocol's. ``scenes`` are segmented and detected in,
    ``known_scenes`` of them under attackers who hold the segmenter.
    """

    photos: int
    white: tuple[Line, ...]
    transfer: tuple[str, ...]
    transfer_eps: tuple[int, ...]
    ssp_iterations: int
    fff_iterations: int
    figure_photos: int
    layers: tuple[tuple[str, tuple[str, ...]], ...]
    layer_iterations: int
    counts: tuple[int, ...]
    known_photos: int
    known_draws: int
    aware: AwarePlan
    scenes: int
    known_scenes: int

    def limited(self, photos: int | None, aware: int | None, scenes: int | None) -> Plan:
        """The same on other numbers of photos and scenes; None leaves one as it is."""
        count, known = photos or self.photos, aware or self.aware.photos
        few = min(self.aware.few, known), min(self.aware.square_photos, known)
        return replace(
            self,
            photos=count,
            figure_photos=min(self.figure_photos, count),
            known_photos=min(self.known_photos, count),
            aware=replace(self.aware, photos=known, few=few[0], square_photos=few[1]),
            scenes=scenes or self.scenes,
            known_scenes=min(self.known_scenes, scenes or self.scenes),
        )


WHOLE = Plan(
    photos=200,
    white=(
        # What the bars ask for comes first: time may be up before the rest.
        Line("PGD-50 untargeted", (4, 8, 2, 16), seen_eps=(4,)),
        # All hundred iterations, as the package makes them, so that the figure is AutoAttack's: half the photos.
        Line("AutoAttack pair", (4, 8, 2, 16), seen_eps=(4,), share=0.5),
        Line("MI-FGSM", EPS),
        Line("DIM", EPS),
        Line("DIM-TI", EPS),
        Line("FGSM", EPS),
    ),
    transfer=("MI-FGSM", "DIM", "DIM-TI"),
    transfer_eps=(8, 16),
    ssp_iterations=100,
    fff_iterations=10_000,
    figure_photos=50,
    layers=LAYERS,
    layer_iterations=20,
    counts=(1, 2, 5, 10, 20, 50, 100),
    known_photos=64,
    known_draws=4,
    aware=AwarePlan(),
    scenes=40,
    known_scenes=16,
)
REHEARSAL = Plan(
    photos=20,
    white=(
        Line("FGSM", (8,)),
        Line("DIM", (8,)),
        Line("PGD-50 untargeted", (4,), seen_eps=(4,)),
        Line("AutoAttack pair", (4,), share=0.1),
    ),
    transfer=("DIM",),
    transfer_eps=(16,),
    ssp_iterations=10,
    fff_iterations=20,
    figure_photos=4,
    layers=LAYERS,
    layer_iterations=5,
    counts=(1, 10),
    known_photos=2,
    known_draws=1,
    aware=AwarePlan(
        photos=2,
        steps=3,
        eot=2,
        decisions=2,
        few=1,
        eot_curve=(1, 2),
        square_photos=1,
        square_queries=10,
        square_draws=1,
    ),
    scenes=4,
    known_scenes=1,
)


def plan_for(photos: int | None, aware: int | None, scenes: int | None) -> Plan:
    """The whole plan, or the rehearsal where ``photos`` are fewer than ``FEWEST``, on the numbers asked for."""
    base = REHEARSAL if photos is not None and photos < FEWEST else WHOLE
    return base.limited(photos, aware, scenes)
