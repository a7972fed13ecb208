"""Dashboards and alerts: generated, and about metrics that exist."""
import glob, json, os, re, shutil, tempfile, unittest
import cluster, kinds, live, stack, test_scaling
from stack import ROOT
from test_cluster import Shell

AT = f"{ROOT}/docs/monitoring"
WORDS = set("sum by rate histogram_quantile avg absent increase and le namespace model_name role pod on max min".split())


def metrics(expr):
    """The metric names of a PromQL expression: identifiers that are neither functions nor labels."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\bby\s*\([^)]*\)", "", re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare))
    return {w for w in re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*", bare) if w not in WORDS}


def expressions():
    for path in glob.glob(f"{AT}/dashboards/*.json"):
        with open(path) as f:
            board = json.load(f)
        for panel in board["panels"]:
            for t in panel.get("targets", []):
                yield f"{os.path.basename(path)}: {panel['title']}", t["expr"], t["legendFormat"]
    with open(f"{AT}/alerts.yaml") as f:
        for group in stack.load(f)["spec"]["groups"]:
            for rule in group["rules"]:
                yield rule["alert"], rule["expr"], ""
    for where, query in test_scaling.queries():
        yield f"autoscaling: {where}", query, ""


class Monitoring(unittest.TestCase):
    def test_generated(self):
        self.assertEqual("", stack.run(["python3", f"{AT}/make-dashboards", "--check"], check=False).stdout)
        with open(f"{AT}/alerts.yaml") as f:
            rules = stack.load(f)
        self.assertEqual([], kinds.errors(rules))
        with open(f"{AT}/runbooks.md") as f:
            books = f.read()
        for group in rules["spec"]["groups"]:
            for rule in group["rules"]:
                self.assertIn(f"## {rule['alert']}\n", books)

    def test_names_are_read_right(self):
        self.assertEqual({"a:b_bucket", "c"}, metrics('histogram_quantile(0.9, sum by (le, x) (rate(a:b_bucket{x=~"y"}[5m]))) > 1 and c{d="e"} == 0'))

    @unittest.skipUnless(stack.BIN, "run.py --bin DIR")
    def test_every_metric_exists(self):
        model = glob.glob(f"{ROOT}/models/*.gguf")
        if not model:
            self.skipTest("no demo model: baton pull smollm2 --model-dir models")
        names, labels = live.exported(stack.BIN, model[0])
        for where, expr, legend in expressions():
            used = metrics(expr) - {"up"}
            self.assertEqual(set(), used - names, where)
            # A label that nothing has makes an empty graph. Scrapes add namespace and pod, the charts' PodMonitors role.
            shown = set(re.findall(r"\{\{(\w+)\}\}", legend)) | {w.strip() for by in re.findall(r"\bby \(([^)]*)\)", expr) for w in by.split(",")}
            for name in used & set(labels):
                matched = {w for inside in re.findall(re.escape(name) + r"\{([^}]*)\}", expr) for w in re.findall(r"(\w+)=", inside)}
                self.assertEqual(set(), (shown | matched) - labels[name] - {"namespace", "pod", "role", "job"}, f"{where}: {name}")

    @unittest.skipUnless(shutil.which("promtool"), "no promtool (Debian package prometheus)")
    def test_promtool_takes_the_rules(self):
        with open(f"{AT}/alerts.yaml") as f, tempfile.NamedTemporaryFile("w", suffix=".json") as out:
            json.dump({"groups": stack.load(f)["spec"]["groups"]}, out)
            out.flush()
            stack.run(["promtool", "check", "rules", out.name])

    def test_install_script(self):
        """On a cluster with Prometheus' operator nothing but dashboards and rules is added, and -u takes them away."""
        with cluster.Cluster() as kube:
            shell = Shell(kube)
            self.addCleanup(shell.close)
            for crd in ("prometheuses", "prometheusrules"):
                kube.put("apiextensions.k8s.io/v1", "customresourcedefinitions", None, {"metadata": {"name": f"{crd}.monitoring.coreos.com"}})
            script = f"{AT}/scripts/install-prometheus-grafana.sh"
            said = shell(script).stdout
            self.assertIn("there already", said)
            boards = shell("kubectl get cm -n llm-d-monitoring -l grafana_dashboard=1 -o name").stdout.split()
            self.assertEqual(["configmap/llmd-engine", "configmap/llmd-pd-overview", "configmap/llmd-router"], boards)
            self.assertIn("baton-alerts", shell("kubectl get prometheusrules -n llm-d-monitoring").stdout)
            shell(f"{script}; {script} -u; {script} -u")
            self.assertEqual("", shell("kubectl get cm,prometheusrules -n llm-d-monitoring -o name").stdout)
            self.assertEqual(1, shell(f"{script} -z", check=False).returncode)
            kube.put("apiextensions.k8s.io/v1", "customresourcedefinitions", None, {"metadata": {"name": "clusterversions.config.openshift.io"}})
            self.assertIn("OpenShift", shell(script, check=False).stderr)

    def test_install_script_with_a_chart(self):
        """Without an operator it installs the stack, here a stand-in for its chart that notes what it was given."""
        with cluster.Cluster() as kube, tempfile.TemporaryDirectory() as chart:
            shell = Shell(kube)
            self.addCleanup(shell.close)
            os.mkdir(f"{chart}/templates")
            for path, text in (("Chart.yaml", "{apiVersion: v2, name: kube-prometheus-stack, version: 1.0.0}"),
                               ("templates/c.yaml", "kind: ConfigMap\napiVersion: v1\nmetadata: {name: given}\ndata:\n  values: {{ toJson .Values | quote }}\n")):
                with open(f"{chart}/{path}", "w") as f:
                    f.write(text)
            shell(f"{AT}/scripts/install-prometheus-grafana.sh -n mon -i -c {chart}")
            given = json.loads(stack.load(shell("kubectl get cm given -n mon -o yaml").stdout)["data"]["values"])
            spec = given["prometheus"]["prometheusSpec"]
            self.assertEqual({"monitoring-ns": "mon"}, spec["podMonitorNamespaceSelector"]["matchLabels"])
            self.assertEqual("mon", stack.load(shell("kubectl get ns mon -o yaml").stdout)["metadata"]["labels"]["monitoring-ns"])
            self.assertIn("llmd", shell("helm list -n mon -q").stdout)
