#!/bin/sh
# All that is to be measured on a GPU, and the tests of devices, with what is installed: no network. See gpu.py.
set -e
cd "$(dirname "$0")/.."
python="${PYTHON:-$(test -x .venv/bin/python && echo .venv/bin/python || echo python3)}"
"$python" -m benchmarks.gpu "$@"
"$python" -m pytest -q -p no:cacheprovider tests/tasks/test_on_device.py tests/study/test_placing.py tests/story/test_devices.py
