"""Huffman-coded strings of header fields (RFC 7541, section 5.2), decoded a byte at a time by a machine that learns
its transitions as it meets them."""

from __future__ import annotations

from serving.transport.frames import ConnectionFault, ErrorCode
from serving.transport.hpack_tables import CODE_BITS

_END_OF_STRING = 256


def _tree() -> list[list[int]]:
    """Inner nodes with two branches each: the number of another node, or ~symbol."""
    nodes = [[0, 0]]
    code = previous = 0
    for bits, symbol in sorted((bits, symbol) for symbol, bits in enumerate(CODE_BITS)):
        code <<= bits - previous
        previous = bits
        node = 0
        for shift in range(bits - 1, 0, -1):
            branch = code >> shift & 1
            if not nodes[node][branch]:
                nodes.append([0, 0])
                nodes[node][branch] = len(nodes) - 1
            node = nodes[node][branch]
        nodes[node][code & 1] = ~symbol
        code += 1
    return nodes


_NODES = _tree()
_PADDING = [0]  # the nodes reached from the root by at most seven ones
for _ in range(7):
    _PADDING.append(_NODES[_PADDING[-1]][1])
_MAY_END = frozenset(_PADDING)


class _State(dict[int, tuple["_State", bytes]]):
    """For each next byte the state after it and the symbols it ends; learned when first met."""

    def __init__(self, node: int) -> None:
        super().__init__()
        self.node = node

    def __missing__(self, byte: int) -> tuple[_State, bytes]:
        node = self.node
        symbols = bytearray()
        for shift in range(7, -1, -1):
            node = _NODES[node][byte >> shift & 1]
            if node < 0:
                if ~node == _END_OF_STRING:
                    raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "an end-of-string symbol in a string")
                symbols.append(~node)
                node = 0
        step = self[byte] = _STATES[node], bytes(symbols)
        return step


_STATES = [_State(node) for node in range(len(_NODES))]


def huffman_decode(text: bytes) -> bytes:
    """Raises ConnectionFault for bad padding or the end-of-string symbol."""
    state = _STATES[0]
    decoded = []
    for byte in text:
        state, symbols = state[byte]
        decoded.append(symbols)
    if state.node not in _MAY_END:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "bad padding of a Huffman-coded string")
    return b"".join(decoded)
