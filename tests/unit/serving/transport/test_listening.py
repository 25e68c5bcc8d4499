import socket
from contextlib import closing

import pytest

from serving.transport.listening import bind


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_a_socket_of_tcp_says_so(address):
    """asyncio lets small writes wait for the peer's acknowledgement, 40 ms, on sockets that do not."""
    with closing(bind(address)) as made:
        assert made.proto == socket.IPPROTO_TCP
