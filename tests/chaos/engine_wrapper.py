#!/usr/bin/env python3
"""Stands for baton-engine in a --bin-dir: exchanges the peers of --kv-peers for proxies, then becomes the real engine."""
import os, socket, sys


def proxy_of(peer):
    host, port = peer.rsplit(":", 1)
    with socket.create_connection(("127.0.0.1", int(os.environ["BATON_CHAOS_CONTROL"]))) as s:
        s.sendall(f"{port}\n".encode())
        return f"{host}:{int(s.makefile().readline())}"


argv = sys.argv[1:]
if "--kv-peers" in argv:
    at = argv.index("--kv-peers") + 1
    while at < len(argv) and not argv[at].startswith("--"):
        argv[at] = proxy_of(argv[at])
        at += 1
engine = os.environ["BATON_CHAOS_ENGINE"]
os.execv(engine, [engine, *argv])
