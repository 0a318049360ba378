# /// script
# dependencies = ["scikit-learn>=1.5", "skl2onnx>=1.18"]
# ///
"""Train the model and write it as filters/model.onnx: ``uv run train.py``, or pip install and run.

ONNX, not pickle. A pickle runs whatever code it holds when it is loaded, and only the scikit-learn
that wrote it reads it for certain. An ONNX file is data: the sidecar needs onnxruntime, neither
scikit-learn nor this file, and a model from PyTorch or LightGBM takes its place unchanged.
"""

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

FEATURES = ("price", "seconds_on_page", "clicks_last_hour")


def clicks(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return made-up clicks and whether each is a fraud; read your own here."""
    random = np.random.default_rng(seed)
    fraud = random.random(count) < 0.2
    features = np.column_stack(
        [
            random.gamma(2.0, np.where(fraud, 0.7, 0.5)),
            random.exponential(np.where(fraud, 5.0, 25.0)),
            random.poisson(np.where(fraud, 9, 4)),
        ]
    )
    return features.astype(np.float32), fraud


def main() -> None:
    """Train, say how good it is, and write the file."""
    model = GradientBoostingClassifier(n_estimators=30, max_depth=3, random_state=1)
    model.fit(*clicks(20_000, seed=1))
    unseen = clicks(5_000, seed=2)
    print(f"right for {model.score(*unseen):.1%} of clicks not seen; 'no fraud' for all: 80%")
    # zipmap off: the probabilities come as one array, not as a dict a click.
    onnx = to_onnx(model, clicks(1, seed=1)[0], options={"zipmap": False}, target_opset=17)
    onnx.metadata_props.add(key="features", value=",".join(FEATURES))
    target = Path(__file__).parent / "filters" / "model.onnx"
    target.write_bytes(onnx.SerializeToString())
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
