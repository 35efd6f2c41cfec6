"""The interactive viewer of a page: its volumes, its choices and NiiVue, all inside the page.

Large volumes are reduced before they come here (methods/pages/excerpt.py). util/pages/viewer.js
says what the page does with them.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dominate import tags
from dominate.util import raw

from util.errors import UserError

PACKAGE = "ipyniivue"
# The package's bundle for notebooks carries a second, standalone copy of NiiVue as one string in
# percent notation, for the pages that it saves itself. That one is a module with names to import.
STANDALONE = re.compile(r'"([^"\\\n]{1000000,})"')

HERE = Path(__file__).parent

OVERLAY_OPACITY = 0.5


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


@dataclass(frozen=True)
class PageVolume:
    """A volume that the viewer can show."""

    name: str  # for choosing it
    content: bytes  # a .nii.gz file
    unit: str = "HU"  # of its values, such as HU; empty for none
    colormap: str = "gray"  # NiiVue's name of it
    # low, high: values that get the first and the last colour; of images, the page's window takes
    # their place
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class PageView:
    """One part of a case: volumes of the same slices."""

    # name, what: for the choice and below the pictures
    name: str
    what: str
    volumes: Sequence[PageVolume]  # images on any grid
    overlays: Sequence[PageVolume]  # to lay over each of them
    # (index in the volume, centre [x, y, z] in mm) of each
    slices: Sequence[tuple[int, Sequence[float]]]
    start: int  # the slice shown first, as an index into `slices`


@dataclass(frozen=True)
class Viewer:
    """Everything about a case's viewer but its pictures."""

    views: Sequence[PageView]  # parts of the case
    # (name, low, high) in `unit`, the first one at the start
    windows: Sequence[tuple[str, float, float]]
    first: Sequence[str]  # names of the volumes that the panes show at the start, one a pane
    swipe: tuple[str, str]  # names of the two that the swipe begins with
    plane: str  # axial, coronal or sagittal
    num_slices: int  # of the whole case
    unit: str = "HU"  # of the windows
    # what each overlay tells, by its name
    overlay_notes: dict[str, str] = field(default_factory=dict)


def viewer_style() -> str:
    """CSS of the viewer."""
    return (HERE / "viewer.css").read_text(encoding="utf-8")


def viewer_nodes(viewer: Viewer) -> list[Any]:
    """What the page's body needs for the viewer, in this order.

    Raises:
        UserError: NiiVue is not installed.
    """
    volumes: dict[str, bytes] = {}
    views = [_view(view, volumes) for view in viewer.views]
    overlays = dict.fromkeys(volume.name for view in viewer.views for volume in view.overlays)
    spec = {
        "views": views,
        "windows": [{"name": n, "low": low, "high": high} for n, low, high in viewer.windows],
        "overlays": [
            {"name": n, "opacity": OVERLAY_OPACITY, "what": viewer.overlay_notes.get(n, "")}
            for n in overlays
        ],
        "panes": len(viewer.first),
        "first": list(viewer.first),
        "swipe": list(viewer.swipe),
        "plane": viewer.plane,
        "slices": viewer.num_slices,
        "unit": viewer.unit,
    }
    nodes = [tags.div(id="viewer", cls="viewer")]
    text = json.dumps(spec).replace("<", "\\u003c")  # no name can end the script
    nodes.append(_script("viewer-spec", text, "application/json"))
    nodes += [_script(name, _base64(content)) for name, content in volumes.items()]
    nodes.append(_script("niivue", _packed_niivue()))
    program = (HERE / "viewer.js").read_text(encoding="utf-8")
    nodes.append(tags.script(raw(program), type="module"))
    return nodes


def _view(view: PageView, volumes: dict[str, bytes]) -> dict[str, Any]:
    """A view as the program reads it; adds its volumes' contents to `volumes`."""

    def entry(volume: PageVolume) -> dict[str, Any]:
        name = f"volume-{len(volumes)}"
        volumes[name] = volume.content
        return {
            "id": name,
            "name": volume.name,
            "unit": volume.unit,
            "colormap": volume.colormap,
            "low": volume.low,
            "high": volume.high,
        }

    return {
        "name": view.name,
        "what": view.what,
        "volumes": [entry(volume) for volume in view.volumes],
        "overlays": [entry(volume) for volume in view.overlays],
        "slices": [{"number": number, "centre": list(centre)} for number, centre in view.slices],
        "start": view.start,
    }


def _script(name: str, text: str, kind: str = "text/plain") -> tags.script:
    return tags.script(raw(text), id=name, type=kind)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


@cache
def _packed_niivue() -> str:
    return _base64(gzip.compress(niivue_module().encode("utf-8"), mtime=0))
