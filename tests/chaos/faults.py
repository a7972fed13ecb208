"""The faults of a chaos run: one row each. A fault is (name, weight, function(run) -> what was hit)."""
import os, signal, threading, time


def pick(run, *roles):
    """A process of one of these roles that is up: (name, pid)."""
    found = [(name, pid) for name, (pid, _) in run.stack.children().items() if name.split("-")[0] in roles]
    return run.random.choice(sorted(found)) if found else (None, None)


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill(*roles):
    def strike(run):
        name, pid = pick(run, *roles)
        if pid:
            send(pid, signal.SIGKILL)
        return name
    return strike


def terminate(run):
    name, pid = pick(run, "prefill", "decode")
    if pid:
        send(pid, signal.SIGTERM)
    return name


def stop(*roles):
    def strike(run):
        name, pid = pick(run, *roles)
        if not pid:
            return None
        send(pid, signal.SIGSTOP)
        timer = threading.Timer(run.random.uniform(0.2, 6), send, (pid, signal.SIGCONT))
        timer.start()
        run.timers.append(timer)
        return name
    return strike


def wire(kind):
    def strike(run):
        run.proxies.arm(kind)
        return "kv"
    return strike


FAULTS = [
    ("kill prefill", 3, kill("prefill")),
    ("kill decode", 3, kill("decode")),
    ("kill sidecar", 2, kill("sidecar")),
    ("stop prefill", 2, stop("prefill")),
    ("stop decode", 1, stop("decode")),
    ("stop sidecar", 1, stop("sidecar")),
    ("restart", 2, terminate),
    ("flip a bit of the KV wire", 4, wire("flip")),
    ("lose bytes of the KV wire", 1, wire("lose")),
    ("cut the KV wire", 1, wire("cut")),
    ("hold the KV wire", 1, wire("hold")),
]
