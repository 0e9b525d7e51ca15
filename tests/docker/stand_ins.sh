#!/usr/bin/env bash
# Build docker/Dockerfile with podman on a stand-in for its base image, made of Debian's packages:
# for machines that reach no registry of images. Usage: stand_ins.sh build | env
# build: prepare all and build the images; env: print what podman needs to find them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
place=${STAND_INS:-$PWD/.venv/stand-ins}
python=${PYTHON:-.venv/test/bin/python}
base=localhost/celery-batcher-base:bookworm

mkdir -p "$place/conf" "$place/networks"
cat >"$place/conf/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=20000:20000"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "$place/networks"
END
cat >"$place/conf/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$place/storage"
runroot = "$place/run"
END
export CONTAINERS_CONF=$place/conf/containers.conf CONTAINERS_STORAGE_CONF=$place/conf/storage.conf

case ${1:-build} in
env)
    printf '%s=%s\n' CONTAINERS_CONF "$CONTAINERS_CONF" CONTAINERS_STORAGE_CONF "$CONTAINERS_STORAGE_CONF"
    ;;
build)
    if ! command -v podman runc mmdebstrap >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            podman runc mmdebstrap >"$place/apt.log"
    fi
    [ -s "$place/base.tar" ] || mmdebstrap --quiet --variant=minbase \
        --include=python3,python3-venv,python3-pip,ca-certificates,redis-server,procps \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        bookworm "$place/base.tar"
    podman image exists "$base" || {
        podman import --quiet "$place/base.tar" "$base-rootfs"
        printf 'FROM %s\nRUN ln -s /usr/bin/python3 /usr/local/bin/python\n' "$base-rootfs" |
            podman build --quiet --network none --tag "$base" -
    }
    # What pip installs inside is downloaded outside: the build itself has no network.
    "$python" - >"$place/requirements.txt" <<'END'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
extras = project["project"]["optional-dependencies"]
lines = project["build-system"]["requires"] + project["project"]["dependencies"]
lines.append("async-timeout")  # redis-py wants it on the Python of the base
print("\n".join(lines + [one for name in ("flower", "metrics") for one in extras[name]]))
END
    "$python" -m pip download --quiet --disable-pip-version-check --only-binary :all: \
        --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 \
        --platform manylinux_2_28_x86_64 --dest "$place/wheels" --requirement "$place/requirements.txt"
    podman build --quiet --format docker --network none --volume "$place/wheels:/wheels:ro" \
        --build-arg PYTHON_IMAGE="$base" --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels \
        --tag celery-batcher-proj --file docker/Dockerfile .
    ;;
esac
