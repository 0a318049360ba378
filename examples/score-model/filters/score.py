"""Clicks get the probability that they are a fraud, from a model that each worker loads once."""

from pathlib import Path

import msgspec
import numpy as np
import onnxruntime

import bridge

HERE = Path(__file__).parent


class Click(msgspec.Struct):
    """The features, checked: a click that lacks one is an error. They are laid over the record."""

    price: float
    seconds_on_page: float
    clicks_last_hour: int
    fraud_score: float = 0.0


@bridge.batch("ad.click")
class Score:
    """Add ``fraud_score``, between 0 and 1.

    Args:
        model: an ONNX file; a relative path begins at this folder.
    """

    def __init__(self, model: str = "model.onnx") -> None:
        options = onnxruntime.SessionOptions()
        # A worker a core is there already: threads of the model's own would fight them for it.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            HERE / model, options, providers=["CPUExecutionProvider"]
        )
        features = self._session.get_modelmeta().custom_metadata_map["features"].split(",")
        if features != list(Click.__struct_fields__[:-1]):
            raise ValueError(f"{model} was trained on {features}, not on the fields of Click")

    def __call__(self, clicks: list[Click]) -> list[Click]:
        # One call for all: of the time that a single click takes, most is the call itself.
        rows = np.array(
            [(one.price, one.seconds_on_page, one.clicks_last_hour) for one in clicks], np.float32
        )
        _, probabilities = self._session.run(None, {"X": rows})
        # tolist: a record cannot hold numpy's numbers.
        for click, score in zip(clicks, probabilities[:, 1].tolist(), strict=True):
            click.fraud_score = round(score, 4)
        return clicks
