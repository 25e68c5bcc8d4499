from __future__ import annotations

import subprocess
import sys

from loaders.catalog import formats


def test_formats_are_the_files_of_the_folder() -> None:
    assert formats() == ["fate", "onnx", "tessera", "trees"]


def test_listing_formats_imports_no_heavy_library() -> None:
    code = "import sys; from loaders.catalog import formats; formats(); print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
