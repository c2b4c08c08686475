#!/usr/bin/env bash
# The environment of a machine with GPUs, looked at on one without: `bash tests/gpu_path/run.sh [FOLDER]`.
# Installs the GPU set into FOLDER (.venv-gpu; 11 GB, a quarter of an hour) as on a machine with a driver and no CUDA
# toolkit, then `python -m tests.gpu_path.environment`. Needs Linux, gcc, and root or user namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${PSYFORGE_TOOLKIT_HIDDEN:-}" ]; then # a mount namespace of its own, in which the toolkit can be covered
  [ "$(id -u)" = 0 ] && as=() || as=(--user --map-root-user)
  PSYFORGE_TOOLKIT_HIDDEN=yes exec unshare "${as[@]}" --mount bash "$0" "$@"
fi

export VENV=${1:-.venv-gpu} PIP_NO_CACHE_DIR=1
unset CUDA_HOME CUDA_PATH
hidden=$(mktemp -d)
trap 'rm -rf "$hidden"' EXIT
for folder in /usr/local/cuda* /opt/cuda*; do
  if [ -d "$folder" ] && [ ! -L "$folder" ]; then mount -t tmpfs tmpfs "$folder"; fi # an empty one
done
while nvcc=$(command -v nvcc); do # a folder of the path with nvcc in it gives way to one with all the rest of it
  folder=$(dirname "$nvcc") rest=$(mktemp -d -p "$hidden")
  find "$folder" -maxdepth 1 -mindepth 1 ! -name nvcc -exec ln -s -t "$rest" {} +
  PATH=:$PATH: PATH=${PATH//:$folder:/:$rest:} PATH=${PATH#:} PATH=${PATH%:}
  hash -r
done

started=$SECONDS
code=0
bash launch/install.sh gpu || code=$?
echo "install.sh gpu without a toolkit and without pip's cache: exit code $code, $((SECONDS - started)) s"
[ "$code" = 0 ] || exit "$code"

# A driver's library, which some packages load when they are imported
if ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
  gcc -shared -fPIC -o "$hidden/libcuda.so.1" tests/gpu_path/stub_libcuda.c
  export LD_LIBRARY_PATH=$hidden${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
"$VENV/bin/python" -m tests.gpu_path.environment
