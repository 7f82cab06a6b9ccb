"""Options of `train` for a portrait that is trained within seconds and learns nothing."""

OPTIONS = (
    *("--preset", "small", "--device", "cpu", "--log-every", "1", "--portrait.head-grid.resolution", "32"),
    *("--silence-fraction", "0"),
    *("--head.n-rays", "128", "--finetune.n-rays", "128", "--torso.n-rays", "128", "--finetune.patch-size", "8"),
)
"""Everything but the number of steps."""


def options(head: int, finetune: int, torso: int) -> list[str]:
    """Options with the number of steps per stage."""
    steps = {"head": head, "finetune": finetune, "torso": torso}
    return [*OPTIONS, *(option for stage, n in steps.items() for option in (f"--{stage}.iterations", str(n)))]
