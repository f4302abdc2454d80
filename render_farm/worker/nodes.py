"""Small pieces of shader graphs: what feeds a socket, and arithmetic on sockets."""

from typing import Any


def source(socket: Any) -> Any:
    """The output socket that feeds an input, through reroutes; None where nothing does."""
    while socket.is_linked:
        link = socket.links[0]
        if link.from_node.type != "REROUTE":
            return link.from_socket
        socket = link.from_node.inputs[0]
    return None


def mix(tree: Any, kind: str, factor: Any, first: Any, second: Any) -> Any:
    """first * (1 - factor) + second * factor, of kind FLOAT or RGBA."""
    node = tree.nodes.new("ShaderNodeMix")
    node.data_type = kind
    of_kind = [socket for socket in node.inputs if socket.enabled]
    for feed, socket in zip((factor, first, second), of_kind, strict=True):
        tree.links.new(feed, socket)
    return next(socket for socket in node.outputs if socket.enabled)


def scaled(tree: Any, colour: Any, factor: Any) -> Any:
    """colour * factor."""
    node = tree.nodes.new("ShaderNodeVectorMath")
    node.operation = "SCALE"
    tree.links.new(colour, node.inputs["Vector"])
    tree.links.new(factor, node.inputs["Scale"])
    return node.outputs["Vector"]


def as_output(tree: Any, socket: Any) -> Any:
    """An input's value as an output socket."""
    found = source(socket)
    if found is not None:
        return found
    return rgb(tree, socket.default_value) if socket.type == "RGBA" else value(tree, socket.default_value)


def rgb(tree: Any, colour: Any) -> Any:
    """A constant colour."""
    node = tree.nodes.new("ShaderNodeRGB")
    node.outputs[0].default_value = colour
    return node.outputs[0]


def value(tree: Any, number: float) -> Any:
    """A constant."""
    node = tree.nodes.new("ShaderNodeValue")
    node.outputs[0].default_value = number
    return node.outputs[0]


def vector(tree: Any, x: Any, y: Any) -> Any:
    """(x, y, 0)."""
    node = tree.nodes.new("ShaderNodeCombineXYZ")
    tree.links.new(x, node.inputs[0])
    tree.links.new(y, node.inputs[1])
    return node.outputs[0]


def parts(tree: Any, feed: Any) -> tuple[Any, Any]:
    """x and y of a vector."""
    node = tree.nodes.new("ShaderNodeSeparateXYZ")
    tree.links.new(feed, node.inputs[0])
    return node.outputs[0], node.outputs[1]


def output_of(tree: Any) -> Any:
    """The material output node that Cycles uses, or None."""
    return tree.get_output_node("CYCLES") or tree.get_output_node("ALL")


def upstream(socket: Any) -> list[Any]:
    """Every node that feeds an input, nearest first; nodes inside groups are found too."""
    found: list[Any] = []
    waiting = [socket]
    while waiting:
        for link in waiting.pop(0).links:
            node = link.from_node
            if node in found:
                continue
            found.append(node)
            waiting += [entry for entry in node.inputs if entry.is_linked]
            if node.type == "GROUP" and node.node_tree is not None:
                ends = [end for end in node.node_tree.nodes if end.type == "GROUP_OUTPUT"]
                waiting += [entry for end in ends for entry in end.inputs if entry.is_linked]
    return found
