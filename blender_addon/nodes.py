"""Writing node trees in few lines: sockets and numbers go in, sockets come out. Used for shaders and geometry alike."""

from typing import Any, TypeAlias

import bpy

Input: TypeAlias = bpy.types.NodeSocket | float | tuple[float, ...]


class NodeWriter:
    """Adds nodes to one tree, left to right, and links what it is given."""

    def __init__(self, tree: bpy.types.NodeTree) -> None:
        """Take a tree and empty it."""
        self.tree = tree
        tree.nodes.clear()

    def add(self, kind: str, label: str = "", **properties: Any) -> bpy.types.Node:
        """Add a node of a type, its properties set; nodes stand in rows of ten so that an artist can read them."""
        node = self.tree.nodes.new(kind)
        count = len(self.tree.nodes) - 1
        node.location = (220 * (count % 10), -320 * (count // 10))
        node.label = label
        for name, value in properties.items():
            setattr(node, name, value)
        return node

    def feed(self, socket: bpy.types.NodeSocket, value: Input) -> None:
        """Link a socket, or set its number."""
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, socket)
        else:
            socket.default_value = value

    def _operate(self, kind: str, operation: str, inputs: tuple[Input, ...], label: str) -> bpy.types.Node:
        node = self.add(kind, label, operation=operation)
        for socket, value in zip(node.inputs, inputs, strict=False):
            self.feed(socket, value)
        return node

    def math(self, operation: str, *inputs: Input, label: str = "") -> bpy.types.NodeSocket:
        """Add a Math node; returns its value."""
        return self._operate("ShaderNodeMath", operation, inputs, label).outputs[0]

    def vector(self, operation: str, *inputs: Input, label: str = "") -> bpy.types.NodeSocket:
        """Add a Vector Math node; returns its vector, or its value where the operation gives one."""
        node = self._operate("ShaderNodeVectorMath", operation, inputs, label)
        return node.outputs["Value" if operation in ("DOT_PRODUCT", "LENGTH", "DISTANCE") else "Vector"]

    def scaled(self, vector: Input, factor: Input, label: str = "") -> bpy.types.NodeSocket:
        """Add a Vector Math node that scales."""
        node = self.add("ShaderNodeVectorMath", label, operation="SCALE")
        self.feed(node.inputs[0], vector)
        self.feed(node.inputs["Scale"], factor)
        return node.outputs[0]
