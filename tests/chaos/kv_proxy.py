"""TCP proxies between engines' KV ports, which do one armed fault each: flip a bit, cut, lose bytes, hold everything for a while.

An engine that is started through engine_wrapper.py asks here for a proxy of every peer it is given. One thread of its own."""
import asyncio, random, threading


class KvProxies:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.loop = asyncio.new_event_loop()
        self.ports = {}  # target port -> proxy port
        self.connections = []  # of all proxies
        self.armed = None
        self.injected = {}
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.control_port = self.call(self.listen(self.answer))

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def listen(self, handler):
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def answer(self, reader, writer):
        target = int(await reader.readline())
        if target not in self.ports:
            self.ports[target] = await self.listen(lambda r, w: self.serve(target, r, w))
        writer.write(f"{self.ports[target]}\n".encode())
        await writer.drain()
        writer.close()

    async def serve(self, target, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            return writer.close()
        connection = (writer, up_writer)
        self.connections.append(connection)
        await asyncio.gather(self.pump(reader, up_writer), self.pump(up_reader, writer))
        self.connections.remove(connection)

    async def pump(self, reader, writer):
        try:
            while data := await reader.read(1 << 16):
                data = await self.through_fault(bytearray(data))
                if data is None:
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    async def through_fault(self, data):
        if self.armed is None or len(data) < 24:
            return data
        kind, self.armed = self.armed, None
        self.injected[kind] = self.injected.get(kind, 0) + 1
        if kind == "flip":
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        elif kind == "lose":
            at = self.random.randrange(len(data))
            del data[at : at + 1 + self.random.randrange(64)]
        elif kind == "hold":
            await asyncio.sleep(self.random.uniform(0.2, 4))
        elif kind == "cut":
            return None
        return data

    def arm(self, kind):
        """The next bytes that pass anywhere meet it."""
        self.loop.call_soon_threadsafe(setattr, self, "armed", kind)

    def calm(self):
        self.loop.call_soon_threadsafe(setattr, self, "armed", None)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
