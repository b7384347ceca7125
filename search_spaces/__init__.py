"""Which architectures may be built: search spaces by name."""

from search_spaces import convmixer as convmixer  # registers the space
from search_spaces import hybrid_stages as hybrid_stages
from search_spaces import hybrid_wide as hybrid_wide
from search_spaces import isotropic as isotropic
from search_spaces import t2t_vit as t2t_vit
from search_spaces.space import Choice, Limits, SearchSpace, SpaceError, SpaceSettings, get, names

__all__ = ["Choice", "Limits", "SearchSpace", "SpaceError", "SpaceSettings", "get", "names"]
