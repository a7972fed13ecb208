"""Container images without a container runtime: what a Dockerfile of docker/ makes, as a folder, and its programs run in it.

Dockerfiles are read by a small interpreter of the instructions that ours use; any other is an error. Where it is not what a builder does:
- the stage that compiles is not run: its `cmake --install` is, on the release build that is there;
- packages are unpacked, not configured: no maintainer script runs, so there is no ld.so.cache and no file of CA certificates;
- the base is what debian:bookworm-slim is made of (essential and required packages, apt), as this machine's sources have it today.

  images.py --fetch      the Debian packages of base and images, into build/image-packages; nothing of the machine changes, root is not needed
"""
import glob, hashlib, json, os, re, shlex, shutil, stat, subprocess, sys, tempfile
import stack
from stack import ROOT

AT = f"{ROOT}/build/image-packages"
FILES = {os.path.basename(p).split(".", 1)[1]: p for p in glob.glob(f"{ROOT}/docker/Dockerfile.*")}
PROGRAMS = ["engine", "sidecar", "router", "tools"]
INSTALL = r"(?:--mount=type=bind,source=docker/install-packages,target=(?P<at>\S+) )?(?(at)(?P=at)|docker/install-packages) (?P<what>[^&|;>]+)"
BASE_PACKAGES = ["?essential", "?priority(required)", "apt"]


class Unknown(Exception):
    """The Dockerfile says something that this interpreter does not do."""


# ---- reading

def parse(path):
    """(global arguments, stages): a stage is {"name", "from", "steps": [(instruction, rest)]}, in order."""
    with open(path) as f:
        text = re.sub(r"(?m)^\s*#.*\n", "", f.read())
    arguments, stages = [], []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.partition(" ")
        if word not in ("ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "LABEL", "EXPOSE", "USER", "ENTRYPOINT"):
            raise Unknown(f"{path}: {word}")
        if word == "FROM":
            m = re.fullmatch(r"(\S+)(?: AS (\w+))?", rest)
            stages.append({"from": m[1], "name": m[2], "steps": []})
        elif stages:
            stages[-1]["steps"].append((word, rest.strip()))
        elif word == "ARG":
            arguments.append(rest)
        else:
            raise Unknown(f"{path}: {word} before FROM")
    return arguments, stages


def expand(text, known):
    def value(m):
        if m[1] not in known:
            raise Unknown(f"${{{m[1]}}} has no value")
        return known[m[1]]
    return re.sub(r"\$\{(\w+)\}", value, text)


def packages(image):
    """The Debian packages that the image itself installs."""
    for word, rest in parse(FILES[image])[1][-1]["steps"]:
        if word == "RUN":
            m = re.fullmatch(INSTALL, rest)
            if not m:
                raise Unknown(f"{image}: RUN {rest}")
            return m["what"].split()
    return []


# ---- packages

def apt(*args):
    """apt with a state of its own, for a system where nothing is installed yet."""
    command = ["apt-get", "-q", "-y", "--no-install-recommends"]
    for key, value in (("Dir::State", f"{AT}/state"), ("Dir::State::status", f"{AT}/state/status"), ("Dir::Cache", f"{AT}/cache"), ("APT::Sandbox::User", ""),
                       ("Debug::NoLocking", "1"), ("Acquire::Retries", "3"), ("Acquire::Languages", "none")):
        command += ["-o", f"{key}={value}"]
    return stack.run(command + list(args)).stdout


def closure(wanted):
    found = re.findall(r"(?m)^Inst (\S+) \((\S+) .*\[(\w+)\]\)", apt("--simulate", "install", *wanted))
    return [f"{name}_{version.replace(':', '%3a')}_{arch}.deb" for name, version, arch in found]


def fetch():
    wanted = {image: packages(image) for image in PROGRAMS}
    stamp = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
    if os.path.exists(f"{AT}/stamp") and open(f"{AT}/stamp").read() == stamp:
        return False
    shutil.rmtree(AT, ignore_errors=True)
    for folder in ("state/lists/partial", "cache/archives/partial"):
        os.makedirs(f"{AT}/{folder}")
    open(f"{AT}/state/status", "w").close()
    apt("update")
    apt("--download-only", "install", *BASE_PACKAGES, *sorted({p for ps in wanted.values() for p in ps}))
    base = closure(BASE_PACKAGES)
    files = {"base": base} | {image: [f for f in closure(BASE_PACKAGES + ps) if f not in base] for image, ps in wanted.items()}
    with open(f"{AT}/files.json", "w") as f:
        json.dump(files, f, indent=1)
    os.mkdir(f"{AT}/base")
    for folder in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):  # as debootstrap lays out a system with one /usr
        os.makedirs(f"{AT}/base/usr/{folder}")
        os.symlink(f"usr/{folder}", f"{AT}/base/{folder}")
    unpack(f"{AT}/base", files["base"])
    shutil.rmtree(f"{AT}/state/lists")
    with open(f"{AT}/stamp", "w") as f:
        f.write(stamp)
    return True


def unpack(root, debs):
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", f"{AT}/cache/archives/{deb}"], stdout=subprocess.PIPE) as tar:
            subprocess.run(["tar", "-x", "--keep-directory-symlink", "-p", "-C", root], stdin=tar.stdout, check=True)
    for what in glob.glob(f"{root}/usr/share/man") + glob.glob(f"{root}/usr/share/locale") + glob.glob(f"{root}/usr/share/info"):
        shutil.rmtree(what)  # the slim base's dpkg leaves these away
    for folder, _, names in os.walk(f"{root}/usr/share/doc"):
        for name in names:
            if name != "copyright":
                os.unlink(f"{folder}/{name}")


# ---- making

class Image:
    def __init__(self, root):
        self.root, self.user, self.entrypoint, self.ports, self.labels = root, "0:0", [], [], {}
        self.env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}


def make(image, root, build):
    """The image of docker/Dockerfile.<image> in folder root, its programs from the build folder."""
    arguments, stages = parse(FILES[image])
    known = dict(a.split("=", 1) for a in arguments)
    final = stages[-1]
    base = expand(final["from"], known)
    ours = re.fullmatch(r"baton/([\w-]+):[\d.]+", base)
    if ours:
        out = make(ours[1], root, build)
    elif re.fullmatch(r"docker\.io/library/debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base):
        shutil.copytree(f"{AT}/base", root, symlinks=True, copy_function=os.link)  # nothing writes into a file that is there
        out = Image(root)
    else:
        raise Unknown(f"{image}: FROM {base}")
    known = {}
    for word, rest in final["steps"]:
        if word == "ARG":
            known[rest.split("=", 1)[0]] = rest.split("=", 1)[1]
            continue
        if word != "RUN":
            rest = expand(rest, known)
        if word == "RUN" and re.fullmatch(INSTALL, rest):
            unpack(root, stack.load(open(f"{AT}/files.json"))[image])
        elif word == "COPY":
            m = re.fullmatch(r"--from=(\w+)(?: --chown=0:0)? (/\S+) (/\S+/)", rest)
            if not m:
                raise Unknown(f"{image}: COPY {rest}")
            with tempfile.TemporaryDirectory() as scratch:
                came = compiled(next(s for s in stages if s["name"] == m[1]), m[2], build, scratch)
                if os.path.isdir(came):
                    shutil.copytree(came, root + m[3], dirs_exist_ok=True)
                else:
                    os.makedirs(root + m[3], exist_ok=True)
                    shutil.copy2(came, root + m[3])
        elif word == "LABEL":
            out.labels |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "ENV":
            out.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "EXPOSE":
            out.ports = [int(p) for p in rest.split()]
        elif word == "USER":
            out.user = rest
        elif word == "ENTRYPOINT":
            out.entrypoint = json.loads(rest)
        else:
            raise Unknown(f"{image}: {word} {rest}")
    return out


def compiled(stage, path, build, scratch):
    """What a stage before the last left at path."""
    runs = [rest for word, rest in stage["steps"] if word == "RUN"]
    for command in runs:
        words = command.split()
        if words[:3] == ["cmake", "--install", "build/release"] and words[3:5] == ["--prefix", path.rstrip("/")]:
            stack.run(["cmake", "--install", build, "--prefix", f"{scratch}/out", *words[5:]])
            return f"{scratch}/out"
    if stage["name"] == "model" and len(runs) == 1:
        program, *words = json.loads(runs[0])
        folder = words[words.index("--model-dir") + 1]
        stack.run([f"{build}/bin/{program}", *[f"{ROOT}/models" if w == folder else w for w in words]])
        return f"{ROOT}/models{path.removeprefix(folder)}"
    raise Unknown(f"stage {stage['name']} leaves nothing at {path}")


# ---- looking

def files(root):
    """path -> stat, of everything below root."""
    out = {}
    for folder, names, plain in os.walk(root):
        for name in names + plain:
            out[os.path.relpath(f"{folder}/{name}", root)] = os.lstat(f"{folder}/{name}")
    return out


def size(stats):
    return sum(s.st_size for s in {s.st_ino: s for s in stats if stat.S_ISREG(s.st_mode)}.values())


# ---- running

ENTER = """set -e; r=$1; user=$2; shift 2
mount --bind "$r" "$r"; mount --rbind /proc "$r/proc"; mount --rbind /dev "$r/dev"; mount -t tmpfs -o mode=1777 tmpfs "$r/tmp"
if [ -n "$user" ]; then mount -o remount,bind,ro "$r"; set -- --userspec="$user" "$r" "$@"; else set -- "$r" "$@"; fi
exec chroot "$@"
"""


def inside(image, argv, env=None):
    """The command that runs argv in the image: as root of this machine the image's own user and a root file system that cannot be written,
    as the charts have it; as anybody else that user alone, in a user namespace."""
    root = os.getuid() == 0
    return ["unshare", "--mount", "--propagation", "private", *([] if root else ["--map-root-user"]), "sh", "-c", ENTER, "sh", image.root, image.user if root else "",
            "env", "-i", *[f"{k}={v}" for k, v in {**image.env, **(env or {})}.items()], *argv]


def why_not():
    """Why nothing can be run in an image here, or None."""
    if not os.path.exists(f"{AT}/stamp"):
        return "no packages in build/image-packages: tests/deploy/images.py --fetch"
    done = subprocess.run(["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "true"], capture_output=True, text=True)
    return f"this machine allows no mount namespace ({done.stderr.strip()})" if done.returncode else None


if __name__ == "__main__":
    if sys.argv[1:] != ["--fetch"]:
        sys.exit(__doc__)
    print("Debian packages of base and images are in build/image-packages" if fetch() else "Debian packages of the images are there")
