"""What is sampled in place of a registered head: the canonical one in its shape and with its texture."""

from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image

from models.core import Mesh
from models.layout import layout_of
from models.png import PNG_LEVEL, png_chunks
from models.template import Head, Template

RELAID = 2048
"""Texels along a texture that is laid out anew before a clip begins: three seconds; 4096 would take twelve."""


def form_template(template: Template, head: Head, base_color_png: bytes | None) -> Template:
    """The canonical head in the shape that a registered one has, under its id: what is sampled in its place.

    base_color_png: the registered head's texture, laid out as the atlas is.
    """
    assert template.form is not None
    atlas, form = head.atlas, template.form
    mesh = Mesh(form.vertices, atlas.faces, atlas.uvs, atlas.uv_faces, base_color_png)
    seal = replace(head.seal, parted=template.seal.parted)
    return Template(mesh, form.maps, seal, template.id, atlas.vertex_anchors, head.regions, template.licence)


def on_atlas(template: Template, head: Head) -> bytes | None:
    """A template's base colour as PNG, laid out as the atlas is; None where it has none. What is laid out anew has at
    most RELAID texels along a side, and the canonical head's colours where the template has none, as in eyes of another
    material.
    """
    picture, layout = template.mesh.base_color_png, layout_of(template, head)
    if picture is None or layout is None:
        return picture
    with Image.open(BytesIO(picture)) as image, Image.open(BytesIO(head.base_color_png)) as canonical:
        texture = np.asarray(image.convert("RGB"))
        size = min(len(texture), RELAID)
        elsewhere = np.asarray(canonical.convert("RGB").resize((size, size)))
    return b"".join(png_chunks(size, [layout.to_atlas(texture, size, elsewhere)], PNG_LEVEL))
