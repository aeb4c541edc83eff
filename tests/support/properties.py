"""How many examples hypothesis tries: `ci` is what every test run takes, `nightly` twenty times as many (HYPOTHESIS_PROFILE chooses)."""

import os

from hypothesis import settings

EXAMPLES = 100
"""Of a property that says nothing else, in `ci`."""

settings.register_profile("ci", deadline=None, print_blob=True, max_examples=EXAMPLES)
settings.register_profile("nightly", settings.get_profile("ci"), max_examples=20 * EXAMPLES)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(PROFILE)


def examples(count: int) -> int:
    """`max_examples` of a property that needs more or fewer than others: `count` in `ci`."""
    return count * settings.get_profile(PROFILE).max_examples // EXAMPLES
