"""NiiVue, the viewer of NIfTI volumes in a browser, as a text that a page can carry."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from util.errors import UserError

PACKAGE = "ipyniivue"
# The package's bundle for notebooks carries a second, standalone copy of NiiVue as one string in
# percent notation, for the pages that it saves itself. That one is a module with names to import.
STANDALONE = re.compile(r'"([^"\\\n]{1000000,})"')


@cache
def niivue_module() -> str:
    """Source of NiiVue as one ECMAScript module that exports `Niivue`, `NVImage`, `SLICE_TYPE`.

    Raises:
        UserError: the package that carries it is missing or built in another way.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {PACKAGE} is not installed: pip install -r requirements.txt")
    bundle = Path(spec.submodule_search_locations[0]) / "static" / "widget.js"
    try:
        text = bundle.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{bundle} cannot be read ({error}): install {PACKAGE} again") from error
    for match in STANDALONE.finditer(text):
        source = unquote(match.group(1))
        if source.rstrip().endswith("};") and "Niivue" in source[source.rfind("export{") :]:
            return source
    raise UserError(
        f"{bundle} holds no standalone NiiVue: install {PACKAGE} in the version of "
        "requirements.lock"
    )
