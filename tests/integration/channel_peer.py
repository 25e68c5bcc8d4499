"""A party in a process of its own: says hello to the guest, then echoes until its standard input ends.

Arguments: port of the guest. Prints its own port.
"""

import asyncio
import itertools
import sys
import threading

from serving import transport
from training.channel import Tag
from training.channels.exchange import Exchange
from training.channels.grpc import GrpcChannel
from training.channels.meeting import Meeting


async def live(guest_port: int) -> None:
    exchange, server = Exchange("host"), transport.server(transport.Transport.NATIVE)
    exchange.register(server)
    print(server.add_port("127.0.0.1:0"), flush=True)
    await server.start()
    channel = GrpcChannel(exchange, Meeting("job", "host", "guest"), f"127.0.0.1:{guest_port}")
    await channel.open("digest", 20)
    for number in itertools.count():
        payload = await channel.receive(Tag("job", "task", 1, "call", number), 60)
        await channel.send(Tag("job", "task", 1, "answer", number), payload)


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    task = loop.create_task(live(int(sys.argv[1])))
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(task.cancel)), daemon=True).start()
    loop.run_until_complete(asyncio.wait([task]))
