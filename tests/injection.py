"""Changes in the code of workers: a `sitecustomize` that Python runs before everything else."""

from __future__ import annotations

import os
from pathlib import Path

_TEMPLATE = """\
import importlib.abc, importlib.util, sys

class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            exec({change!r}, vars(module))

        spec.loader.exec_module = execute_and_change
        return spec

sys.meta_path.insert(0, _Finder())
"""


def injected(folder: Path, module: str, change: str) -> dict[str, str]:
    """Returns the environment of a run in whose processes code runs inside a module.

    Args:
        folder: An empty one.
        module: After whose import.
        change: The code.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_TEMPLATE.format(module=module, change=change))
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
