"""kill -9 of the decode worker in the middle of a stream: the client reads one clean stream with the undisturbed greedy text."""
import http.client, json, os, signal, unittest

import harness
from harness import Stack, flag_of, total, wait_for

PROMPT = "Once upon a time there was a small engine that"
CHAT = [{"role": "user", "content": "Write a short story about a lighthouse keeper and a storm."}]
TOKENS = 48
# Its greedy answer has a special token in it, which is no text and so does not read back, before the 25th event with text.
SPECIAL = "Note 3537208387: patient river lamp rain bridge rain bridge bridge rain lamp river letter"


def body(chat, **extra):
    common = {"max_tokens": TOKENS, "temperature": 0, "stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}, **extra}
    return ("/v1/chat/completions", {"messages": CHAT, **common}) if chat else ("/v1/completions", {"prompt": PROMPT, **common})


class Stream:
    """Reads events one by one; on_event(n) is called after the nth with text."""

    def __init__(self, port, path, request, on_event=lambda n: None):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        c.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
        r = c.getresponse()
        self.status, self.text, self.finish, self.usage, self.done, self.errors = r.status, "", None, None, False, []
        self.heads, self.roles, seen = set(), 0, 0
        for line in r:
            if not line.startswith(b"data: "):
                assert line.strip() == b"", line
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                self.done = True
                continue
            event = json.loads(data)
            if "error" in event:
                self.errors.append(event["error"])
                continue
            self.heads.add((event["id"], event["created"], event["model"]))
            self.usage = event.get("usage") or self.usage
            for choice in event["choices"]:
                said = choice.get("text")
                if said is None:
                    self.roles += "role" in choice["delta"]
                    said = choice["delta"].get("content") or ""
                self.text += said
                self.finish = choice["finish_reason"] or self.finish
                if said:
                    seen += 1
                    on_event(seen)
        c.close()


class Resume(unittest.TestCase):
    def busy(self, s):
        """The decode worker that holds the stream."""
        for name in (n for n in s.endpoints if not n.startswith("prefill")):
            if total(s.port, "baton_gateway_endpoint_inflight_requests", f':{s.endpoints[name]["port"]}"') > 0:
                return name
        return None

    def striker(self, s, cut, killed, victim_of=lambda name: name):
        """Kills the victim behind the cut-th event; who it is, is looked up at the first, while there is time."""
        victim = []

        def strike(n):
            if not victim:
                name = victim_of(self.busy(s))
                victim.extend((name, s.children()[name][0]))
            if n == cut and not killed:
                killed.append(victim[0])
                os.kill(victim[1], signal.SIGKILL)

        return strike

    def check(self, s, chat, victim_of, cuts):
        path, request = body(chat)
        want = Stream(s.port, path, request)
        self.assertEqual((want.status, want.done, want.finish, want.errors), (200, True, "length", []))
        self.assertEqual(want.usage["completion_tokens"], TOKENS)
        for cut in cuts:
            with self.subTest(chat=chat, cut=cut):
                killed = []
                got = Stream(s.port, path, request, self.striker(s, cut, killed, victim_of))
                self.assertTrue(killed)
                self.assertEqual(got.errors, [])
                self.assertEqual(got.text, want.text, f"{killed[0]} killed after {cut} events")
                self.assertEqual((got.done, got.finish, len(got.heads), got.roles), (True, "length", 1, want.roles))
                self.assertEqual(got.usage, want.usage, "usage of both legs together")
                s.wait_ready(killed[0].replace("sidecar", "decode"))

    def test_decode_engine_killed(self):
        with Stack(prefill=1, decode=2) as s:
            for chat in (False, True):
                self.check(s, chat, lambda name: name, (1, 7, 30))
            self.assertGreaterEqual(total(s.port, "baton_gateway_resumed_streams_total", "resumed"), 4, "the engine may be done when the 30th event is read")

    def test_text_that_reads_back_as_other_tokens(self):
        """The next worker goes on from the tokens that were sampled: text, length and usage are the undisturbed ones."""
        with Stack(prefill=1, decode=2) as s:
            tokens = lambda text: json.loads(harness.request(s.port, "POST", "/tokenize", {"prompt": text})[2])["tokens"]
            count = lambda text: len(tokens(text))
            letters = {"allowed_token_ids": [tokens(c)[-1] for c in "aeinorst"]}  # a word in letters reads back in syllables
            for prompt, cut, more in ((SPECIAL, 25, {}), (PROMPT, 20, letters)):
                path, request = body(False, prompt=prompt, **more)
                want = Stream(s.port, path, request)
                self.assertNotEqual(count(prompt + want.text) - count(prompt), TOKENS, "it reads back: this tests nothing")
                killed = []
                got = Stream(s.port, path, request, self.striker(s, cut, killed))
                self.assertEqual((got.text, got.usage, got.errors, got.done, got.finish), (want.text, want.usage, [], True, "length"))
                s.wait_ready(killed[0])
            self.assertGreaterEqual(total(s.port, "baton_gateway_resumed_streams_total", "resumed"), 1, "a stream may end before it is struck, not both")

    def test_the_client_sees_nothing_of_the_ids(self):
        """What the gateway asks for beside the request stays between it and the worker."""
        with Stack(prefill=1, decode=1) as s:
            for chat in (False, True):
                path, request = body(chat)
                engine, gateway = (harness.request(p, "POST", path, request)[2].decode() for p in (s.engine_port("decode-0"), s.port))
                scrub = lambda stream: [{k: v for k, v in json.loads(e[6:]).items() if k not in ("id", "created")} if e[6] == "{" else e
                                        for e in stream.split("\n\n") if e]
                self.assertEqual(scrub(gateway), scrub(engine))
                self.assertNotIn("token_ids", gateway)

    def test_sidecar_killed(self):
        with Stack(prefill=1, decode=2) as s:
            self.check(s, True, lambda name: name.replace("decode", "sidecar"), (9,))

    def test_aggregated_engine_killed_and_terminated(self):
        with Stack(prefill=0, decode=2) as s:
            self.check(s, False, lambda name: name, (5, 20))
            path, request = body(False)
            want = Stream(s.port, path, request).text
            ended = []

            def terminate(n):
                if n == 6 and not ended:
                    ended.append(self.busy(s))
                    s.kill(ended[0], signal.SIGTERM)

            got = Stream(s.port, path, request, terminate)
            self.assertEqual((got.text, got.errors, got.done), (want, [], True), "a worker that drains may finish, or another goes on")

    def test_what_cannot_go_on_ends_with_one_clear_error(self):
        with Stack(prefill=0, decode=2) as s:
            path, request = body(False, seed=5)
            request["temperature"] = 1.0
            got = Stream(s.port, path, request, lambda n: n == 3 and s.kill(self.busy(s)))
            self.assertEqual(len(got.errors), 1)
            self.assertEqual(got.errors[0]["code"], 502)
            self.assertTrue(got.done)


if __name__ == "__main__":
    unittest.main()
