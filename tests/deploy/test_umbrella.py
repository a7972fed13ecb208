"""charts/baton is the three charts under one name; what is generated is current."""
import glob, os, unittest
import kinds, manifests, stack
from stack import ROOT, find, key, matches, pods

BATON = f"{ROOT}/charts/baton"


class Umbrella(unittest.TestCase):
    def render(self, *values, release="baton", version="4"):
        return stack.objects(stack.helm_template(release, BATON, values, release, version))

    def test_laptop(self):
        objs = self.render()
        self.assertEqual(objs, self.render(version="3"))
        for o in objs:
            self.assertEqual([], kinds.errors(o), key(o))
        front, = find(objs, "Service", "baton-inference-gateway")
        picker, = [(m, s) for _, m, s in pods(objs) if "inferencepool" in m["labels"]]
        self.assertTrue(matches(front["spec"]["selector"], picker[0]["labels"]))
        args = picker[1]["containers"][0]["args"]
        selector = dict(t.split("=") for t in args[args.index("--endpoint-selector") + 1].split(","))
        self.assertEqual({"decode", "prefill"}, {m["labels"]["llm-d.ai/role"] for _, m, _ in pods(objs) if matches(selector, m["labels"])})
        for _, m, _ in pods(self.render(release="other")):
            self.assertFalse(matches(selector, m["labels"]), "two releases keep apart")

    def test_examples_are_the_guides_environments(self):
        for path in glob.glob(f"{BATON}/examples/*.yaml"):
            env = os.path.basename(path)[:-5]
            with self.subTest(env):
                one, three = self.render(path), stack.all_objects(stack.rendered()[env])
                for o in one:
                    self.assertEqual([], kinds.errors(o), key(o))
                self.assertEqual(sorted(o["kind"] for o in three), sorted(o["kind"] for o in one))
                for role in ("prefill", "decode"):
                    a, b = ([s for _, m, s in pods(objs) if m["labels"].get("llm-d.ai/role") == role][0] for objs in (one, three))
                    self.assertEqual({**b, "serviceAccountName": "baton-llm-d-modelservice"}, a)
                for route in find(one, "HTTPRoute"):
                    self.assertEqual([g["metadata"]["name"] for g in find(one, "Gateway")], [p["name"] for p in route["spec"]["parentRefs"]])

    def test_generated_files(self):
        for path, text in manifests.generated().items():
            with open(f"{ROOT}/{path}") as f:
                self.assertEqual(f.read(), text, f"{path}: charts/render --generated")
        out = stack.run([stack.KUBECTL, "kustomize", f"{ROOT}/deploy/kind"]).stdout
        for o in stack.objects(out):
            self.assertEqual([], kinds.errors(o), key(o))
