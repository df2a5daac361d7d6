"""A GLB with new materials: meshes, nodes, skins and animations stay as they are, what is no longer used goes."""

import copy
from collections.abc import Callable
from typing import Final

from app.sandbox.media.glb import GlbBuilder
from app.sandbox.media.glb_read import Entry, GlbFile, as_count, as_index, as_list, as_object

_KEPT: Final = ("scene", "scenes", "nodes", "meshes", "skins", "animations", "cameras")
_KEPT_EXTENSIONS: Final = frozenset({"KHR_lights_punctual", "KHR_mesh_quantization"})
_KEPT_MAPS: Final = ("normalTexture", "occlusionTexture")


class Repacker:
    """Copies what `file` keeps into `builder`; accessors, textures and bytes are copied once, on first use."""

    def __init__(self, file: GlbFile) -> None:
        self._file = file
        self._moved: dict[tuple[str, int], int] = {}
        document = {key: copy.deepcopy(file.document[key]) for key in _KEPT if key in file.document}
        self.builder = GlbBuilder(document)
        for name in ("extensionsUsed", "extensionsRequired"):
            left = [one for one in as_list(file.document.get(name), name) if one in _KEPT_EXTENSIONS]
            if left:
                document[name] = left
        lights = as_object(file.document.get("extensions", {}), "extensions").get("KHR_lights_punctual")
        if lights is not None:
            document["extensions"] = {"KHR_lights_punctual": copy.deepcopy(lights)}
        for node in self._objects("nodes"):
            _strip(node)
        for mesh in self._objects("meshes"):
            for primitive in as_list(mesh.get("primitives"), "primitives"):
                self._primitive(as_object(primitive, "primitive"))
        for skin in self._objects("skins"):
            self._point(skin, "inverseBindMatrices")
        for animation in self._objects("animations"):
            for sampler in as_list(animation.get("samplers"), "samplers"):
                self._point(as_object(sampler, "sampler"), "input")
                self._point(as_object(sampler, "sampler"), "output")

    def primitive(self, mesh: int, number: int) -> Entry:
        return as_object(self._objects("meshes")[mesh]["primitives"][number], "primitive")

    def kept_maps(self, material: Entry) -> Entry:
        """The maps of the shape, not of the surface: they stay true under a new skin."""
        maps: Entry = {}
        for name in _KEPT_MAPS:
            if name not in material:
                continue
            info = copy.deepcopy(as_object(material[name], name))
            _strip(info)
            info["index"] = self._texture(info.get("index"))
            maps[name] = info
        return maps

    def _objects(self, kind: str) -> list[Entry]:
        return [as_object(one, kind) for one in as_list(self.builder.document.get(kind), kind)]

    def _primitive(self, primitive: Entry) -> None:
        _strip(primitive)
        primitive.pop("material", None)
        attributes = as_object(primitive.get("attributes"), "attributes")
        for name in [name for name in attributes if name.startswith("COLOR_")]:
            del attributes[name]  # would tint the new skin
        for name in attributes:
            self._point(attributes, name)
        for target in as_list(primitive.get("targets"), "targets"):
            for name in as_object(target, "target"):
                self._point(target, name)
        self._point(primitive, "indices")

    def _point(self, holder: Entry, key: str) -> None:
        if key in holder:
            holder[key] = self._accessor(holder[key])

    def _accessor(self, index: object) -> int:
        accessor = self._file.entry("accessors", index)
        return self._once("accessors", index, lambda: self._copied_accessor(accessor))

    def _copied_accessor(self, accessor: Entry) -> int:
        copied = copy.deepcopy(accessor)
        self._move_view(copied)
        if "sparse" in copied:
            sparse = as_object(copied["sparse"], "sparse")
            for part in ("indices", "values"):
                self._move_view(as_object(sparse.get(part), part))
        return self.builder.add("accessors", copied)

    def _move_view(self, holder: Entry) -> None:
        if "bufferView" in holder:
            holder["bufferView"] = self._view(holder["bufferView"])

    def _view(self, index: object) -> int:
        view = self._file.entry("bufferViews", index)

        def copied() -> int:
            number = self.builder.view(bytes(self._file.view_bytes(index)))
            entry: Entry = self.builder.document["bufferViews"][number]
            entry.update({key: as_count(view[key], key) for key in ("byteStride", "target") if key in view})
            return number

        return self._once("bufferViews", index, copied)

    def _texture(self, index: object) -> int:
        texture = self._file.entry("textures", index)

        def copied() -> int:
            entry: Entry = {}
            if "source" in texture:
                image = copy.deepcopy(self._file.entry("images", texture["source"]))
                self._move_view(image)
                entry["source"] = self.builder.add("images", image)
            if "sampler" in texture:
                sampler = copy.deepcopy(self._file.entry("samplers", texture["sampler"]))
                entry["sampler"] = self.builder.add("samplers", sampler)
            return self.builder.add("textures", entry)

        return self._once("textures", index, copied)

    def _once(self, kind: str, index: object, copied: Callable[[], int]) -> int:
        key = (kind, as_index(index, len(self._file.entries(kind)), kind))
        if key not in self._moved:
            self._moved[key] = copied()
        return self._moved[key]


def _strip(entry: Entry) -> None:
    extensions = entry.pop("extensions", None)
    if isinstance(extensions, dict) and "KHR_lights_punctual" in extensions:
        entry["extensions"] = {"KHR_lights_punctual": extensions["KHR_lights_punctual"]}
