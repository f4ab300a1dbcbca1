"""Settings for all property tests.

By default they try the same examples every time, so that a red run is red for everybody.
``HYPOTHESIS_PROFILE=explore pytest tests/property`` tries new ones, ``quick`` does not look for the simplest failure.
"""

import os

from hypothesis import HealthCheck, Phase, settings

for name, steady in (("steady", True), ("explore", False)):
    settings.register_profile(
        name, deadline=None, derandomize=steady, suppress_health_check=[HealthCheck.too_slow], print_blob=True
    )
settings.register_profile("quick", settings.get_profile("steady"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
