"""The supervisor of a run. Holds no code on purpose: PyPI's supervisord has a package of this name, too."""
