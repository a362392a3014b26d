"""From a clip to bytes, one class a format, for the service and offline alike.

with open("talk.glb", "wb") as file:
    file.writelines(encode(clip, ENCODERS["glb"]()))
"""

from types import MappingProxyType

from service.encoders.base import Encoder, encode
from service.encoders.bundle import BundleEncoder
from service.encoders.codes import CodesEncoder
from service.encoders.frames import FramesEncoder
from service.encoders.glb import GlbEncoder, GlbSequenceEncoder
from service.encoders.obj import ObjEncoder

_FORMATS: tuple[type[Encoder], ...] = (
    GlbEncoder,
    GlbSequenceEncoder,
    ObjEncoder,
    FramesEncoder,
    BundleEncoder,
    CodesEncoder,
)

ENCODERS = MappingProxyType({encoder.name: encoder for encoder in _FORMATS})
"""Every format by name. Where formats share a media type, the first is the one that `Accept` means."""

__all__ = ["ENCODERS", "Encoder", "encode"]
