"""The Hydra plugin: makes this package's `conf/` groups available to every Hydra application.

Runs in any process that starts Hydra, most of which have nothing to do with this package, so it
imports Hydra alone. Hydra 1.3 finds it through `hydra_plugins/isaac_hydra_ext_plugin.py`, Hydra
1.4 through the entry point group `hydra.plugins`.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class IsaacHydraSearchPathPlugin(SearchPathPlugin):
    """Appends `pkg://isaac_hydra_ext.conf` to Hydra's config search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append our configs behind the application's own.

        Appending, not prepending: our groups have everyday names (`env`, `policy`, ...) and an
        application that has a config of the same name keeps its own.

        Args:
            search_path: Hydra's search path, changed in place.
        """
        search_path.append(provider="isaac_hydra_ext", path="pkg://isaac_hydra_ext.conf")
