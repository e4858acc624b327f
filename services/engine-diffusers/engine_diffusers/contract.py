"""The messages of proto/, made from the descriptors that `npm run gen` writes beside this file: no code to generate or to keep current."""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_DESCRIPTORS = Path(__file__).with_name("descriptors.binpb")
SERVICE = "diffusionmesh.v1.EngineService"


def _message_classes() -> dict[str, Any]:
    files = descriptor_pb2.FileDescriptorSet.FromString(_DESCRIPTORS.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return {
        f"{file.package}.{name.name}": message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name.name}"))
        for file in files.file
        for name in file.message_type
    }


_CLASSES = _message_classes()


def message(name: str, package: str = "diffusionmesh.v1") -> Any:
    """The class of a message, such as StatusResponse."""
    return _CLASSES[f"{package}.{name}"]


class EngineState:
    """Values of the enum of this name."""

    EMPTY = 1
    LOADING = 2
    IDLE = 3
    BUSY = 4
